// Var::rows: parts of a value whose gradients meet again in the whole.
#include <doctest/doctest.h>

#include "engine/autograd.h"
#include "ops/elementwise/elementwise.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("rows of a leaf share its numbers, and their gradient is zero elsewhere") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const Shape& shape : {Shape{5, 3}, Shape{5}, Shape{5, 2, 7}, Shape{5, 0}}) {
      for (const auto& [begin, end] : std::vector<std::pair<std::int64_t, std::int64_t>>{
               {0, 5}, {1, 4}, {0, 2}, {4, 5}, {3, 3}, {5, 5}}) {
        INFO(to_string(shape) << " " << begin << ".." << end);
        const Tensor x = random_tensor(shape, 1, dtype);
        const Var leaf = Var::leaf(x);
        const Var y = leaf.rows(begin, end);
        CHECK(y.value().raw() == x.rows(begin, end).raw());
        CHECK(y.shape() == x.rows(begin, end).shape());

        const Tensor dy = random_tensor(y.shape(), 2, dtype);
        backward(y, dy);
        const Tensor dx = leaf.grad();
        CHECK(same_bits(dx.rows(begin, end), dy));
        CHECK(relative_error(dx.rows(0, begin), Tensor::zeros(x.rows(0, begin).shape(), dtype)) ==
              0);
        CHECK(relative_error(dx.rows(end, 5), Tensor::zeros(x.rows(end, 5).shape(), dtype)) == 0);
      }
    }
  }
}

TEST_CASE("rows that cover a tensor send its whole gradient back") {
  const Tensor x = random_tensor({7, 3}, 1), dy = random_tensor({7, 3}, 2);
  const Var leaf = Var::leaf(x);
  backward(leaf.rows(0, 3), dy.rows(0, 3));
  backward(leaf.rows(3, 7), dy.rows(3, 7));
  CHECK(same_bits(leaf.grad(), dy));
}

TEST_CASE("rows of rows count from where they begin") {
  const Tensor x = random_tensor({9, 2}, 1), dy = random_tensor({2, 2}, 2);
  const Var leaf = Var::leaf(x);
  const Var part = leaf.rows(2, 8).rows(3, 5);
  CHECK(part.value().raw() == x.rows(5, 7).raw());
  backward(part, dy);
  CHECK(same_bits(leaf.grad().rows(5, 7), dy));
  CHECK(relative_error(leaf.grad().rows(0, 5), Tensor::zeros({5, 2})) == 0);
}

TEST_CASE("rows and the whole of an op's result may be used side by side") {
  const Tensor x = random_tensor({6, 3}, 1, DType::float32);
  Tensor into = Tensor::full({6, 3}, 7);
  const Var leaf = Var::leaf(x, "x", into);
  const Var twice = scale(leaf, 2);
  const Tensor da = random_tensor({2, 3}, 2, DType::float32),
               db = random_tensor({6, 3}, 3, DType::float32);
  // loss = sum(da * twice[3:5]) + sum(db * twice) + sum(db[3:5] * twice[3:5])
  const Var part = twice.rows(3, 5);
  Var loss = mul(part, Var(da));
  loss = add(loss, mul(twice.rows(3, 5), Var(db.rows(3, 5))));
  // Rows as the final result of a graph: the seed reaches them.
  backward(loss, Tensor::full({2, 3}, 1));
  Tensor expected = Tensor::full({6, 3}, 7);
  Tensor rows = expected.rows(3, 5);
  for (std::int64_t i = 0; i < 6; ++i) {
    rows.data<float>()[i] += 2 * (da.data<float>()[i] + db.rows(3, 5).data<float>()[i]);
  }
  CHECK(relative_error(into, expected) < 1e-6);

  const Var again = Var::leaf(x);
  const Var y = scale(again, 1);
  backward(add(mul(y, Var(db)).rows(0, 6), y), Tensor::full({6, 3}, 1));
  for (std::int64_t i = 0; i < 18; ++i) {
    CHECK(again.grad().data<float>()[i] == doctest::Approx(1 + db.data<float>()[i]));
  }
}

TEST_CASE("rows of a constant need no gradient, rows that do not exist are refused") {
  const Var x = random_tensor({3, 2}, 1, DType::float32);
  CHECK(!x.rows(0, 2).requires_grad());
  CHECK(error_of([&] { x.rows(1, 4); }) == "rows 1..4 of a tensor of shape [3, 2] do not exist");
  CHECK(error_of([&] { x.rows(-1, 2); }) == "rows -1..2 of a tensor of shape [3, 2] do not exist");
  CHECK(error_of([&] { x.rows(2, 1); }) == "rows 2..1 of a tensor of shape [3, 2] do not exist");
  CHECK(error_of([&] { Var(Tensor::zeros({})).rows(0, 0); }) ==
        "rows 0..0 of a tensor of shape [] do not exist");
  const Var leaf = Var::leaf(random_tensor({3, 2}, 1, DType::float32));
  CHECK(error_of([&] { leaf.rows(0, 2).grad(); }) == "grad(): only leaves keep their gradient");
}
