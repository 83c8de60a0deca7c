// Accuracy and loss over a whole split.
#pragma once

#include "train/breakdown.h"
#include "train/step.h"
#include "train/task.h"

namespace hax {

/// Evaluates samples of a split in chunks of 64, each with its own LSH matrix keyed by (seed,
/// chunk). The result depends on the model, the split and the seed only. Stops early, with what it
/// has, when `stop` returns true (may be empty). Adds every target to `breakdown`, where given.
StepResult evaluate(const Model& model, const Parameters& parameters, const Task& task, Split split,
                    std::uint64_t seed, const std::function<bool()>& stop = {},
                    Breakdown* breakdown = nullptr);

/// Where the first NaN or Inf of such an evaluation appears (find_first_nonfinite), "" when there
/// is none.
std::string find_nonfinite_evaluation(const Model& model, const Parameters& parameters,
                                      const Task& task, Split split, std::uint64_t seed);

}  // namespace hax
