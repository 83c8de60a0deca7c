// What a model asks of RandomInputs in a training step, known before it runs: so that the numbers
// can be drawn ahead of time and wait where the step runs.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "models/config.h"
#include "models/random_inputs.h"

namespace hax {

struct Draw {
  enum class Kind { hash, candidates };
  Kind kind = Kind::hash;
  int layer = 0;
  std::int64_t state = 0, columns = 0;  ///< of a hash matrix [state, columns], one a step
  std::int64_t keys = 0;                ///< of candidates: min(keys, length) for each sequence
};

/// In the order of the layers. `config` resolved.
std::vector<Draw> draws_of(const ModelConfig& config);

/// Draws that were made before. Throws Error when asked for others.
class PreparedInputs final : public RandomInputs {
 public:
  /// The matrix of a layer.
  void keep_hash(int layer, const Tensor& matrix) { hashes_[layer] = matrix; }
  /// The candidates of a layer in the pack whose first sequence is `first_sequence`.
  void keep_candidates(int layer, std::int64_t first_sequence, const Candidates& candidates) {
    candidates_[{layer, first_sequence}] = candidates;
  }

  Tensor hash(int layer, std::int64_t state, std::int64_t columns, DType dtype) const override;
  Candidates candidates(int layer, const Sequences& sequences, std::int64_t first_sequence,
                        std::int64_t keys) const override;

 private:
  std::map<int, Tensor> hashes_;
  std::map<std::pair<int, std::int64_t>, Candidates> candidates_;
};

}  // namespace hax
