// What a training step on CUDA reads, samples and random numbers, as one run of 32-bit words: the
// host fills it ahead of time, one copy brings it to the device, and its parts have fixed places
// there.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "data/batch.h"
#include "models/draws.h"

namespace hax {

/// Words that the packs of a step and their draws take.
std::int64_t step_words(std::span<const Batch> packs, std::span<const Draw> draws);
/// Writes them, drawing from `random`. Touches no device.
void write_step(std::span<const Batch> packs, std::span<const Draw> draws,
                const RandomInputs& random, std::span<std::int32_t> words);

/// The same on CUDA.
class StepInputs {
 public:
  /// Room for steps whose packs have the lengths of these (on the CPU).
  StepInputs(std::span<const Batch> packs, std::span<const Draw> draws);

  /// int32 [step_words], to be filled with what write_step() wrote.
  Tensor& words() { return words_; }
  /// Parts of `words`.
  const std::vector<Batch>& packs() const { return packs_; }
  const RandomInputs& random() const { return random_; }

 private:
  Tensor words_;
  std::vector<Batch> packs_;
  PreparedInputs random_;
};

}  // namespace hax
