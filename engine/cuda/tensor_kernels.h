// The few things that the engine itself does to numbers on the device: fill, accumulate, convert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/tensor.h"

namespace hax::cuda {

/// Sets `count` elements of `element_bytes` (1, 2, 4 or 8) each to the one at `element`.
void fill(void* data, std::int64_t count, const void* element, std::size_t element_bytes);
/// to += from for all, in their order where a `to` comes again; all float32, float64 or bfloat16
/// (added in float32). One launch for up to 64 of them that do not meet.
void accumulate_all(std::span<const Addition> additions);
/// result = source, between float32 and bfloat16.
void convert(const Tensor& source, Tensor& result);

}  // namespace hax::cuda
