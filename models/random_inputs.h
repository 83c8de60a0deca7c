// The random numbers a forward pass consumes, as arguments: drawn from keys in training, given in
// verification.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/random.h"
#include "engine/sequences.h"

namespace hax {

/// Keys compared by the ranking loss.
struct Candidates {
  Tensor positions;  ///< int32 [C], within their sequence
  Sequences groups;  ///< which of them belong to which sequence
};

class RandomInputs {
 public:
  virtual ~RandomInputs() = default;
  /// The LSH matrix [state, columns] of a layer, in `dtype`.
  virtual Tensor hash(int layer, std::int64_t state, std::int64_t columns, DType dtype) const = 0;
  /// For each sequence of the pack, min(keys, length) candidates of a layer. `first_sequence` is
  /// the index in the batch of the pack's first sequence.
  virtual Candidates candidates(int layer, const Sequences& sequences, std::int64_t first_sequence,
                                std::int64_t keys) const = 0;
};

/// Draws keyed by (seed, step, sequence in the batch, layer): the same for every pack, shard and
/// thread.
class DrawnInputs final : public RandomInputs {
 public:
  DrawnInputs(std::uint64_t seed, std::uint32_t step) : seed_(seed), step_(step) {}
  /// N(0, 1) entries, one matrix for the whole batch.
  Tensor hash(int layer, std::int64_t state, std::int64_t columns, DType dtype) const override;
  /// Distinct positions, uniformly among the tokens of each sequence, ascending.
  Candidates candidates(int layer, const Sequences& sequences, std::int64_t first_sequence,
                        std::int64_t keys) const override;

 private:
  std::uint64_t seed_;
  std::uint32_t step_;
};

}  // namespace hax
