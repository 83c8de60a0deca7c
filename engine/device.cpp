#include "engine/device.h"

#include "engine/check.h"
#include "engine/cuda/runtime.h"

namespace hax {

std::string_view name_of(Device device) { return device.is_cpu() ? "cpu" : "cuda"; }

Device parse_device(std::string_view name) {
  if (name == "cpu") return kCpu;
  check_usage(name == "cuda", "unknown device '{}': expected cpu or cuda", name);
  check_usage(kHasCuda, "--device cuda: this build has no CUDA backend; use --device cpu");
  if constexpr (kHasCuda) {
    const std::string& reason = cuda::why_no_device();
    check_usage(reason.empty(), "--device cuda: {}; use --device cpu", reason);
  }
  return kCuda;
}

}  // namespace hax
