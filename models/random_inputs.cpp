#include "models/random_inputs.h"

#include <algorithm>

namespace hax {

Tensor DrawnInputs::hash(int layer, std::int64_t state, std::int64_t columns, DType dtype) const {
  Tensor matrix = Tensor::empty({state, columns}, dtype);
  fill_normal(matrix, {.seed = seed_,
                       .step = step_,
                       .layer = static_cast<std::uint16_t>(layer),
                       .purpose = Purpose::hash});
  return matrix;
}

Candidates DrawnInputs::candidates(int layer, const Sequences& sequences,
                                   std::int64_t first_sequence, std::int64_t keys) const {
  std::vector<std::int32_t> positions;
  std::vector<std::int64_t> counts;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t length = sequences.length(s), count = std::min(keys, length);
    RandomStream stream({.seed = seed_,
                         .step = step_,
                         .sequence = static_cast<std::uint32_t>(first_sequence + s),
                         .layer = static_cast<std::uint16_t>(layer),
                         .purpose = Purpose::candidates});
    // Floyd's sampling: after each round the set is a uniform subset of 0..last.
    const std::size_t start = positions.size();
    for (std::int64_t last = length - count; last < length; ++last) {
      const auto pick =
          static_cast<std::int32_t>(stream.below(static_cast<std::uint32_t>(last + 1)));
      const bool taken = std::find(positions.begin() + static_cast<std::ptrdiff_t>(start),
                                   positions.end(), pick) != positions.end();
      positions.push_back(taken ? static_cast<std::int32_t>(last) : pick);
    }
    std::sort(positions.begin() + static_cast<std::ptrdiff_t>(start), positions.end());
    counts.push_back(count);
  }
  return {Tensor::from(positions), Sequences::of_lengths(counts)};
}

}  // namespace hax
