// Whole packs on a device, as CUDA wants them: a batch is one or more packs, and nothing waits
// before all of their work is queued.
#pragma once

#include <vector>

#include "data/batch.h"
#include "models/model.h"
#include "train/step.h"
#include "train/step_sums.h"

namespace hax {

/// What a step's losses are divided by: the targets and the sequences of all of its packs.
struct Divisors {
  double targets = 1, sequences = 1;
};
/// Of a step of one batch. Throws Error when it has no target.
Divisors divisors_of(const Batch& batch);

struct PackContext {
  const Model& model;
  Leaves leaves;  ///< their gradients are added to
  const RandomInputs& random;
  Divisors divisors;
  double gate_loss_weight = 0;
  bool training = true;
};

/// Queues forward and, in training, backward of a pack whose first sequence has number
/// `first_sequence` in the step, and adds its losses and accuracies to `sums`. Returns the logits
/// of the target rows. The pack may lie on either device.
Tensor queue_pack(const PackContext& context, const Batch& pack, std::int64_t first_sequence,
                  StepSums& sums);

/// The result of the packs that `sums` has. Waits for the device.
StepResult result_of(const StepSums::Values& sums, const std::vector<Batch>& packs,
                     double gate_loss_weight);

/// The accuracy of every row by itself, 1 or 0: [R] logits and labels.
std::vector<double> hits_of(const Tensor& logits, const Tensor& labels);

}  // namespace hax
