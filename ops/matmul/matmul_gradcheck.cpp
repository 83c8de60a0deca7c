#include "ops/gradcheck.h"
#include "ops/matmul/matmul.h"

namespace hax {

std::vector<GradCase> matmul_gradchecks() {
  const auto product = [](const char* what, bool transpose_a, bool transpose_b) {
    const Shape a = transpose_a ? Shape{3, 5} : Shape{5, 3};
    const Shape b = transpose_b ? Shape{4, 3} : Shape{3, 4};
    return GradCase{
        "matmul",
        what,
        {gradcheck_tensor(a, 1), gradcheck_tensor(b, 2)},
        [=](std::span<const Var> in) { return matmul(in[0], in[1], transpose_a, transpose_b); }};
  };
  return {
      product("plain", false, false),
      product("a transposed", true, false),
      product("b transposed", false, true),
      product("both transposed", true, true),
      {"matmul",
       "a matrix times itself",
       {gradcheck_tensor({3, 3}, 3)},
       [](std::span<const Var> in) { return matmul(in[0], in[0], true); }},
      {"linear",
       "with bias",
       {gradcheck_tensor({5, 3}, 4), gradcheck_tensor({4, 3}, 5), gradcheck_tensor({4}, 6)},
       [](std::span<const Var> in) { return linear(in[0], in[1], in[2]); }},
      {"linear",
       "without bias",
       {gradcheck_tensor({1, 3}, 7), gradcheck_tensor({2, 3}, 8)},
       [](std::span<const Var> in) { return linear(in[0], in[1]); }},
      {"linears",
       "three layers, two of them read",
       {gradcheck_tensor({5, 3}, 9), gradcheck_tensor({2, 3}, 10), gradcheck_tensor({4, 3}, 11),
        gradcheck_tensor({2, 3}, 12)},
       [](std::span<const Var> in) {
         const std::vector<Var> y = linears(in[0], {in[1], in[2], in[3]});
         return matmul(y[0], y[2], true);
       }},
  };
}

}  // namespace hax
