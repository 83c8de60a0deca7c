#include "tools/bench/cuda/parts.h"

namespace hax::bench {

std::span<const Part> cuda_parts() {
  static constexpr Part kParts[] = {
      {"machine", "limits of the device (measured with every part)", bench_device_machine, true},
  };
  return kParts;
}

}  // namespace hax::bench
