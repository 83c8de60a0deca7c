// A batch on its way to CUDA: one copy for all of its numbers.
#pragma once

#include "data/batch.h"
#include "engine/pinned.h"

namespace hax {

/// Numbers that a batch takes in pinned memory.
std::int64_t pinned_count(const Batch& batch);
/// Writes them. Touches no device, so it may run on another thread than the one that sends.
void write_numbers(const Batch& batch, PinnedMemory& memory);
/// The batch that `memory` was filled from, with tokens, target rows, target labels and the offsets
/// of both packs on CUDA; labels of all rows stay out. Returns at once.
Batch send_batch(const Batch& batch, PinnedMemory& memory);

}  // namespace hax
