#include "train/evaluate.h"

#include <algorithm>

namespace hax {

StepResult evaluate(const Model& model, const Parameters& parameters, const Task& task, Split split,
                    std::uint64_t seed, const std::function<bool()>& stop) {
  constexpr std::int64_t kChunk = 64, kShards = 8;
  // Keeps evaluation's hashes apart from those of training steps.
  constexpr std::uint64_t kEvaluation = 0x6576616c75617465;
  const std::int64_t count = task.count(split);
  StepResult sum;
  for (std::int64_t first = 0; first < count && !(stop && stop()); first += kChunk) {
    const Batch batch = task.batch(split, first, std::min(kChunk, count - first));
    const DrawnInputs random(seed ^ kEvaluation, static_cast<std::uint32_t>(first / kChunk));
    const StepResult part = evaluate_batch(model, parameters, batch, random, kShards);
    sum.lm_loss += part.lm_loss * static_cast<double>(part.targets);
    sum.accuracy += part.accuracy * static_cast<double>(part.samples);
    sum.samples += part.samples;
    sum.targets += part.targets;
    sum.tokens += part.tokens;
  }
  sum.lm_loss /= static_cast<double>(std::max<std::int64_t>(1, sum.targets));
  sum.accuracy /= static_cast<double>(std::max<std::int64_t>(1, sum.samples));
  sum.loss = sum.lm_loss;
  return sum;
}

}  // namespace hax
