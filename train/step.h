// One training step's gradients, and evaluation: whole sequences, one after another, in shards that
// threads take.
#pragma once

#include <vector>

#include "data/batch.h"
#include "models/model.h"

namespace hax {

/// What a batch gave. All sums run over sequences in their order, so they do not depend on shards
/// or threads.
struct StepResult {
  double lm_loss = 0;  ///< mean cross-entropy over the target tokens
  double gate_loss =
      0;  ///< ranking loss, mean over sequences, summed over layers; 0 without key selection
  double loss = 0;      ///< lm_loss + weight x gate_loss
  double accuracy = 0;  ///< mean over samples of the share of right targets
  std::int64_t samples = 0, targets = 0, tokens = 0;
};

struct StepOptions {
  double gate_loss_weight = 0.1;
  /// Pieces the batch is cut into by token counts alone; their gradients are added in order. Part
  /// of the arithmetic: the number of threads is not.
  std::int64_t shards = 8;
};

/// Cuts sequences into at most `shards` contiguous runs of about equally many tokens: boundaries
/// [G+1].
std::vector<std::int64_t> cut_shards(const Sequences& sequences, std::int64_t shards);

/// Runs every sequence forward and backward by itself, with only the target rows wanted, and sets
/// `gradients` to the gradient of StepResult::loss. Results depend on the batch, the random inputs
/// and the shards, never on threads or on how the batch is packed. With parameters (and gradients)
/// on CUDA the whole batch is one pack there, and shards do not matter. Throws Error when the batch
/// has no target.
StepResult step_gradients(const Model& model, const Parameters& parameters, const Batch& batch,
                          const RandomInputs& random, const StepOptions& options,
                          Parameters& gradients);

/// The same without gradients and without the ranking loss. `hits`, where given, becomes one number
/// for each target: 1 where the largest logit is the right one, else 0.
StepResult evaluate_batch(const Model& model, const Parameters& parameters, const Batch& batch,
                          const RandomInputs& random, std::int64_t shards,
                          std::vector<double>* hits = nullptr);

/// "" when every parameter is finite, else the name of the first one that is not.
std::string first_nonfinite_parameter(const Parameters& parameters);

/// Runs the batch once more, watching every op, and says where the first NaN or Inf appears:
/// "selective_scan in backbone.layers.0.mixer (forward, sequence 3 of the batch)"; "" when nothing
/// is wrong.
std::string find_first_nonfinite(const Model& model, const Parameters& parameters,
                                 const Batch& batch, const RandomInputs& random,
                                 const StepOptions& options);

}  // namespace hax
