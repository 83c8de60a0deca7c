#include "train/evaluate.h"

#include <algorithm>

namespace hax {

namespace {

constexpr std::int64_t kChunk = 64, kShards = 8;

// Calls visit(batch, random inputs) for each chunk of a split until it returns false.
template <class F>
void for_each_chunk(const Task& task, Split split, std::uint64_t seed, F&& visit) {
  // Keeps evaluation's hashes apart from those of training steps.
  constexpr std::uint64_t kEvaluation = 0x6576616c75617465;
  const std::int64_t count = task.count(split);
  for (std::int64_t first = 0; first < count; first += kChunk) {
    const DrawnInputs random(seed ^ kEvaluation, static_cast<std::uint32_t>(first / kChunk));
    if (!visit(task.batch(split, first, std::min(kChunk, count - first)), random)) return;
  }
}

}  // namespace

StepResult evaluate(const Model& model, const Parameters& parameters, const Task& task, Split split,
                    std::uint64_t seed, const std::function<bool()>& stop, Breakdown* breakdown) {
  StepResult sum;
  for_each_chunk(task, split, seed, [&](const Batch& batch, const RandomInputs& random) {
    if (stop && stop()) return false;
    std::vector<double> hits;
    const StepResult part = evaluate_batch(model, parameters, batch, random, kShards,
                                           breakdown == nullptr ? nullptr : &hits);
    if (breakdown != nullptr) breakdown->add(batch, task.target_facts(batch), hits);
    sum.lm_loss += part.lm_loss * static_cast<double>(part.targets);
    sum.accuracy += part.accuracy * static_cast<double>(part.samples);
    sum.samples += part.samples;
    sum.targets += part.targets;
    sum.tokens += part.tokens;
    return true;
  });
  sum.lm_loss /= static_cast<double>(std::max<std::int64_t>(1, sum.targets));
  sum.accuracy /= static_cast<double>(std::max<std::int64_t>(1, sum.samples));
  sum.loss = sum.lm_loss;
  return sum;
}

std::string find_nonfinite_evaluation(const Model& model, const Parameters& parameters,
                                      const Task& task, Split split, std::uint64_t seed) {
  std::string found;
  for_each_chunk(task, split, seed, [&](const Batch& batch, const RandomInputs& random) {
    found = find_first_nonfinite(model, parameters, batch, random, {});
    return found.empty();
  });
  return found;
}

}  // namespace hax
