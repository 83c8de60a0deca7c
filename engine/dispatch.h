// The two ways a run-time value becomes a compile-time one. No registry: overloads do the rest.
#pragma once

#include "engine/check.h"
#include "engine/device.h"
#include "engine/dtype.h"

namespace hax {

/// Calls f(Cpu{}) or f(Cuda{}). A build without CUDA never names the Cuda overload.
template <class F>
void on_device(Device device, F&& f) {
  if (device.is_cpu()) return f(Cpu{});
  if constexpr (kHasCuda) {
    f(Cuda{});
  } else {
    throw Error("this build has no CUDA backend");
  }
}

/// Calls f.operator()<float>() or <double>(). Used inside kernel files.
template <class F>
void visit_float(DType dtype, F&& f) {
  if (dtype == DType::float32) return f.template operator()<float>();
  check(dtype == DType::float64, "expected float32 or float64, got {}", name_of(dtype));
  f.template operator()<double>();
}

}  // namespace hax
