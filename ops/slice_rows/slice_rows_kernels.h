// Arithmetic of slice_rows, once for each device. The forward has none: it shares storage.
#pragma once

#include <cstdint>

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// dy [N, ...] -> dx [R, ...]: dy at rows begin..begin+N, zero elsewhere.
void slice_rows_backward(Cpu, const Tensor& dy, std::int64_t begin, Tensor& dx);
void slice_rows_backward(Cuda, const Tensor& dy, std::int64_t begin, Tensor& dx);

}  // namespace hax
