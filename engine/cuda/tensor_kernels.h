// The few things that the engine itself does to numbers on the device: fill, accumulate, convert.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/tensor.h"

namespace hax::cuda {

/// Sets `count` elements of `element_bytes` (1, 2, 4 or 8) each to the one at `element`.
void fill(void* data, std::int64_t count, const void* element, std::size_t element_bytes);
/// destination += source; float32, float64 or bfloat16 (added in float32).
void accumulate(Tensor& destination, const Tensor& source);
/// result = source, between float32 and bfloat16.
void convert(const Tensor& source, Tensor& result);

}  // namespace hax::cuda
