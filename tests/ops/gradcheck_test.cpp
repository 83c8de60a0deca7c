#include "ops/gradcheck.h"

#include <doctest/doctest.h>

#include "tests/support/compare.h"

using namespace hax;

TEST_CASE("every op's gradient equals finite differences") {
  const std::vector<GradCase> cases = all_gradchecks();
  REQUIRE(cases.size() >= 4);
  for (const GradCase& c : cases) {
    INFO(c.op << ": " << c.what);
    CHECK(check_gradient(c).worst <= 1e-6);
  }
}

TEST_CASE("the gradient check notices a wrong gradient") {
  const auto wrong_square = [](std::span<const Var> in) {
    const Tensor x = in[0].value();
    Tensor y = x.clone();
    for (std::int64_t i = 0; i < y.numel(); ++i) y.data<double>()[i] *= x.data<double>()[i];
    return record("wrong_square", y, {in[0]}, [x](const Tensor&) { return Grads{x.clone()}; });
  };
  CHECK(check_gradient({"wrong_square", "", {gradcheck_tensor({3}, 1)}, wrong_square}).worst > 0.1);
}
