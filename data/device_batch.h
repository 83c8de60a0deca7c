// A batch on its way to CUDA: one copy for all of its numbers.
#pragma once

#include <span>

#include "data/batch.h"

namespace hax {

/// Numbers that a batch takes in pinned memory.
std::int64_t pinned_count(const Batch& batch);
/// Writes them.
void write_numbers(const Batch& batch, std::span<std::int32_t> numbers);
/// The batch whose numbers are, or will be, in `numbers` (int32 [pinned_count]) on CUDA: tokens,
/// target rows, target labels and the offsets of both packs are parts of it; labels of all rows
/// stay out. `batch` says the lengths.
Batch batch_in(const Batch& batch, const Tensor& numbers);

}  // namespace hax
