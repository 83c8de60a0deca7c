#include "ops/elementwise/elementwise.h"
#include "ops/gradcheck.h"
#include "ops/running_sum/running_sum.h"

namespace hax {

std::vector<GradCase> running_sum_gradchecks() {
  const auto run = [](Sequences sequences, NormMode mode) {
    return [=](std::span<const Var> in) { return normalized_running_sum(in[0], sequences, mode); };
  };
  const Sequences pack = Sequences::of_lengths({5, 0, 1, 4}),
                  padded({0, 5, 5, 6, 10}, {9, 4, 1, 7});
  // Sums so small that the norm is the smallest one allowed.
  const auto run_tiny = [](NormMode mode) {
    return [=](std::span<const Var> in) {
      return normalized_running_sum(scale(in[0], 1e-14), Sequences::of_lengths({4, 2}), mode);
    };
  };
  return {
      {"normalized_running_sum",
       "causal",
       {gradcheck_tensor({10, 3}, 1)},
       run(pack, NormMode::causal)},
      {"normalized_running_sum",
       "released",
       {gradcheck_tensor({10, 3}, 2)},
       run(pack, NormMode::released)},
      {"normalized_running_sum",
       "released, padded",
       {gradcheck_tensor({10, 3}, 3)},
       run(padded, NormMode::released)},
      {"normalized_running_sum",
       "one feature",
       {gradcheck_tensor({4, 1}, 4)},
       run(Sequences::single(4), NormMode::released)},
      {"normalized_running_sum",
       "causal, tiny sums",
       {gradcheck_tensor({6, 3}, 5)},
       run_tiny(NormMode::causal)},
      {"normalized_running_sum",
       "released, tiny sums",
       {gradcheck_tensor({6, 3}, 6)},
       run_tiny(NormMode::released)},
  };
}

}  // namespace hax
