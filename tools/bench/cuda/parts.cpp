#include "tools/bench/cuda/parts.h"

namespace hax::bench {

std::span<const Part> cuda_parts() {
  static constexpr Part kParts[] = {
      {"machine", "limits of the device (measured with every part)", bench_device_machine, true},
      {"ops", "each op forward and backward on the paper's pack", bench_device_ops, true},
      {"large", "ops that only move numbers, on many; the scan of Mamba-130M", bench_device_large,
       true},
      {"step", "training steps, and what 400,000 of them take", bench_device_step, true},
      {"together", "nine runs that share the device", bench_device_together, false},
  };
  return kParts;
}

}  // namespace hax::bench
