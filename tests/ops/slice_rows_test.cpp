#include "ops/slice_rows/slice_rows.h"

#include <doctest/doctest.h>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("slice_rows shares the rows, and its gradient is zero elsewhere") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const Shape& shape : {Shape{5, 3}, Shape{5}, Shape{5, 2, 7}, Shape{5, 0}}) {
      for (const auto& [begin, end] : std::vector<std::pair<std::int64_t, std::int64_t>>{
               {0, 5}, {1, 4}, {0, 2}, {4, 5}, {3, 3}, {5, 5}}) {
        INFO(to_string(shape) << " " << begin << ".." << end);
        const Tensor x = random_tensor(shape, 1, dtype);
        const Var leaf = Var::leaf(x);
        const Var y = slice_rows(leaf, begin, end);
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

TEST_CASE("slices that cover a tensor send its whole gradient back") {
  const Tensor x = random_tensor({7, 3}, 1), dy = random_tensor({7, 3}, 2);
  const Var leaf = Var::leaf(x);
  backward(slice_rows(leaf, 0, 3), dy.rows(0, 3));
  backward(slice_rows(leaf, 3, 7), dy.rows(3, 7));
  CHECK(same_bits(leaf.grad(), dy));
}

TEST_CASE("slice_rows refuses rows that do not exist") {
  const Tensor x = random_tensor({3, 2}, 1);
  CHECK(error_of([&] { slice_rows(x, 1, 4); }) ==
        "slice_rows: rows 1..4 of a tensor of shape [3, 2] do not exist");
  CHECK(error_of([&] { slice_rows(x, -1, 2); }) ==
        "slice_rows: rows -1..2 of a tensor of shape [3, 2] do not exist");
  CHECK(error_of([&] { slice_rows(x, 2, 1); }) ==
        "slice_rows: rows 2..1 of a tensor of shape [3, 2] do not exist");
  CHECK(error_of([&] { slice_rows(Tensor::zeros({}), 0, 0); }) ==
        "slice_rows: rows 0..0 of a tensor of shape [] do not exist");
}
