// What a forward pass is given and what it gives back.
#pragma once

#include <vector>

#include "engine/sequences.h"
#include "models/parameters.h"
#include "models/random_inputs.h"
#include "models/state.h"
#include "ops/key_set/key_set.h"

namespace hax {

/// What `hax verify` and the inspector look at, one entry a layer.
struct LayerTrace {
  Tensor output;  ///< residual stream after the block [R, D]
  KeySet keys;    ///< of the sparse branch
  bool has_keys = false;
  Tensor key_score;    ///< [T], key selection
  Tensor rank_target;  ///< [C], key selection in training
};

struct ForwardContext {
  const Leaves& parameters;
  const RandomInputs& random;
  Sequences sequences;
  std::int64_t first_sequence = 0;  ///< index in the batch of the pack's first sequence
  bool training = true;             ///< compute the ranking loss
  double sequences_in_batch = 1;    ///< divisor of the ranking loss
  std::vector<LayerTrace>* trace = nullptr;
  /// When given, the tokens go on from this state, which then holds what comes after them.
  ModelState* state = nullptr;

  MixerState* state_of(int layer) const {
    return state ? &state->layers[static_cast<std::size_t>(layer)] : nullptr;
  }
};

struct ForwardResult {
  Var logits;    ///< [R, V], one row for each row wanted
  Var aux_loss;  ///< ranking loss summed over layers, shape []; undefined without key selection or
                 ///< in evaluation
};

}  // namespace hax
