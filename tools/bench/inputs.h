// Data for the rows of `hax bench`: random, the same in every run.
#pragma once

#include "engine/random.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"

namespace hax::bench {

inline Tensor random_tensor(Shape shape, std::uint64_t seed, double deviation = 1) {
  Tensor tensor = Tensor::empty(shape);
  fill_normal(tensor, {.seed = seed}, deviation);
  return tensor;
}

/// The bins of random queries or keys x [T, N] under 8 random directions.
inline Tensor sign_bins(const Tensor& x, const Sequences& sequences) {
  return lsh_bins(x, random_tensor({x.size(1), 8}, 7), sequences, LshRule::sign_bits,
                  LshCenter::causal, NormMode::causal);
}

/// What HAX lets queries see: the 32 latest of their bin and the 32 best by a random score.
inline KeySet hax_keys(const Tensor& Q, const Tensor& K, const Tensor& score,
                       const Sequences& sequences) {
  return unite(lsh_keys(sign_bins(Q, sequences), sign_bins(K, sequences), sequences, 32),
               key_selection_keys(score, sequences, 32));
}

/// Pairs of a query and a key it sees.
inline double count_pairs(const KeySet& keys) {
  double pairs = 0;
  for (const auto& list : to_lists(keys)) pairs += static_cast<double>(list.size());
  return pairs;
}

}  // namespace hax::bench
