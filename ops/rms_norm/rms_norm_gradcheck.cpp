#include "ops/gradcheck.h"
#include "ops/rms_norm/rms_norm.h"

namespace hax {

std::vector<GradCase> rms_norm_gradchecks() {
  const auto run = [](std::span<const Var> in) { return rms_norm(in[0], in[1], 1e-5); };
  return {
      {"rms_norm", "5 rows of 7", {gradcheck_tensor({5, 7}, 1), gradcheck_tensor({7}, 2)}, run},
      {"rms_norm", "one row", {gradcheck_tensor({1, 4}, 3), gradcheck_tensor({4}, 4)}, run},
      {"rms_norm", "rank 3", {gradcheck_tensor({2, 3, 4}, 5), gradcheck_tensor({4}, 6)}, run},
      // One feature: x / sqrt(x^2 + eps) is nearly a sign, so eps decides the gradient.
      {"rms_norm",
       "one feature",
       {gradcheck_tensor({3, 1}, 7), gradcheck_tensor({1}, 8)},
       [](std::span<const Var> in) { return rms_norm(in[0], in[1], 0.5); }},
  };
}

}  // namespace hax
