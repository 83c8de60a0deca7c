#include "ops/elementwise/elementwise.h"
#include "ops/gradcheck.h"
#include "ops/matmul/matmul.h"
#include "ops/reshape/reshape.h"
#include "ops/running_sum/running_sum.h"

namespace hax {
namespace {

// All numbers of both, weighted into one.
Var both(const RunningSumResult& result) {
  const auto weigh = [](const Var& x, std::uint64_t seed) {
    const std::int64_t count = x.value().numel();
    return matmul(gradcheck_tensor({1, count}, seed).to(x.dtype()).to(x.device()),
                  reshape(x, {count, 1}));
  };
  return add(weigh(result.y, 101), weigh(result.final_sum, 102));
}

}  // namespace

std::vector<GradCase> running_sum_gradchecks() {
  const auto run = [](Sequences sequences, NormMode mode) {
    return
        [=](std::span<const Var> in) { return normalized_running_sum(in[0], sequences, mode).y; };
  };
  const Sequences pack = Sequences::of_lengths({5, 0, 1, 4}),
                  padded({0, 5, 5, 6, 10}, {9, 4, 1, 7});
  // Sums so small that the norm is the smallest one allowed.
  const auto run_tiny = [](NormMode mode) {
    return [=](std::span<const Var> in) {
      return normalized_running_sum(scale(in[0], 1e-14), Sequences::of_lengths({4, 2}), mode).y;
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
      {.op = "normalized_running_sum",
       .what = "from a sum",
       .inputs = {gradcheck_tensor({10, 3}, 7), gradcheck_tensor({4, 3}, 8)},
       .run =
           [=](std::span<const Var> in) {
             return normalized_running_sum(in[0], pack, NormMode::causal, in[1]).y;
           },
       .always_float64 = {1}},
      {"normalized_running_sum",
       "final sum alone",
       {gradcheck_tensor({10, 3}, 9)},
       [=](std::span<const Var> in) {
         return normalized_running_sum(in[0], pack, NormMode::causal).final_sum;
       }},
      {.op = "normalized_running_sum",
       .what = "from sum to sum",
       .inputs = {gradcheck_tensor({10, 3}, 10), gradcheck_tensor({4, 3}, 11)},
       .run =
           [=](std::span<const Var> in) {
             return both(normalized_running_sum(in[0], pack, NormMode::causal, in[1]));
           },
       .float64_only = true},
      {.op = "normalized_running_sum",
       .what = "released, padded, and its final sum",
       .inputs = {gradcheck_tensor({10, 3}, 12)},
       .run =
           [=](std::span<const Var> in) {
             return both(normalized_running_sum(in[0], padded, NormMode::released));
           },
       .float64_only = true},
  };
}

}  // namespace hax
