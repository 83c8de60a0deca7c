// A whole training step on CUDA: gradients of all packs, clipping and update are queued, then the
// host asks for the sums.
#pragma once

#include "train/optimizer.h"
#include "train/prefetch.h"

namespace hax {

struct StepOutcome {
  StepResult result;
  double norm = 0;          ///< of the gradients, before clipping
  bool bad_update = false;  ///< an updated parameter is not finite
};

struct UpdateOptions {
  std::int64_t step = 1;  ///< from 1 on
  double lr = 0, clip_norm = 0, gate_loss_weight = 0;
};

/// One step: `gradients` become those of the batches, the optimiser clips them and updates
/// `parameters`; these stay as they were when a loss or gradient is not finite.
StepOutcome step_on_device(const Model& model, const DeviceBatches& batches,
                           const RandomInputs& random, const UpdateOptions& options,
                           AdamW& optimizer, Parameters& gradients, Parameters& parameters);

}  // namespace hax
