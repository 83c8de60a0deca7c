// What would fit after a step ran out of device memory.
#pragma once

#include <string>

#include "train/step.h"

namespace hax {

/// One line of advice for packs of `bsz` sequences, `packs` of them a step: how many sequences of
/// `batch` (the step's, on the host) would fit at once, told from what its shortest and its longest
/// sequence need by themselves, which is measured. `gradients` are overwritten.
std::string advice_on_batch(const Model& model, const Parameters& parameters, const Batch& batch,
                            const RandomInputs& random, const StepOptions& options,
                            std::int64_t bsz, std::int64_t packs, Parameters& gradients);

/// The same from numbers: the bytes that the shortest and longest sequences need at their peak,
/// their tokens, the mean tokens of a sequence and the bytes there are.
struct MemoryNeeds {
  std::int64_t short_tokens, long_tokens;
  std::int64_t short_bytes, long_bytes;
  double mean_tokens;
  std::int64_t free_bytes;
};
std::string advice_on_batch(const MemoryNeeds& needs, std::int64_t bsz, std::int64_t packs);

}  // namespace hax
