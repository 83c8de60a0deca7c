#include "train/device_step.h"

#include <cmath>

#include "train/pack_step.h"

namespace hax {

StepOutcome step_on_device(const Model& model, const DeviceBatches& batches,
                           const RandomInputs& random, const UpdateOptions& options,
                           AdamW& optimizer, Parameters& gradients, Parameters& parameters) {
  check(batches.targets > 0, "the batch has no token to predict");
  const PackContext context{
      model,
      Leaves(parameters, gradients),
      random,
      {static_cast<double>(batches.targets), static_cast<double>(batches.sequences)},
      options.gate_loss_weight,
      true};
  StepSums sums(parameters.device());
  fill(gradients.flat(), 0);
  std::int64_t first = 0;
  for (const Batch& pack : batches.packs) {
    queue_pack(context, pack, first, sums);
    first += pack.count();
  }
  optimizer.update(options.step, options.lr, options.clip_norm, gradients, parameters, sums);
  const StepSums::Values values = sums.read();
  return {result_of(values, batches.packs, options.gate_loss_weight), std::sqrt(values.square),
          values.bad_update != 0};
}

}  // namespace hax
