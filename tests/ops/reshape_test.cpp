#include "ops/reshape/reshape.h"

#include <doctest/doctest.h>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("reshape shares the numbers and refuses other counts") {
  const Tensor x = random_tensor({2, 3}, 1);
  const Var y = reshape(x, {3, 2});
  CHECK(y.shape() == Shape{3, 2});
  CHECK(y.value().raw() == x.raw());
  CHECK(reshape(Tensor::zeros({0, 4}), {2, 0}).value().numel() == 0);
  CHECK(error_of([&] { reshape(x, {4}); }) == "cannot reshape [2, 3] to [4]: 6 and 4 elements");
}

TEST_CASE("the gradient of a reshaped leaf has the leaf's shape") {
  const Var x = Var::leaf(random_tensor({2, 3}, 1));
  backward(reshape(x, {6}), random_tensor({6}, 2));
  CHECK(same_bits(x.grad(), random_tensor({6}, 2).reshape({2, 3})));
}
