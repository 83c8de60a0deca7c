#include "ops/embedding/embedding.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

Tensor some_index(std::int64_t count, std::uint32_t rows) {
  RandomStream random({.seed = 11, .purpose = Purpose::test});
  Tensor index = Tensor::empty({count}, DType::int32);
  for (std::int64_t t = 0; t < count; ++t) {
    index.data<std::int32_t>()[t] = static_cast<std::int32_t>(random.below(rows));
  }
  return index;
}

}  // namespace

TEST_CASE("embedding takes rows, and its gradient adds up what was taken") {
  // rows, dim, tokens
  for (const auto& [rows, dim, count] : std::vector<std::array<std::int64_t, 3>>{
           {7, 5, 40}, {100, 64, 33}, {1, 1, 3}, {4, 0, 2}, {4, 3, 0}, {0, 3, 0}}) {
    INFO(rows << " " << dim << " " << count);
    const Tensor table = random_tensor({rows, dim}, 1), dy = random_tensor({count, dim}, 2);
    const Tensor index =
        some_index(count, static_cast<std::uint32_t>(std::max<std::int64_t>(rows, 1)));
    Tensor expected = Tensor::empty({count, dim}, DType::float64);
    Tensor expected_grad = Tensor::zeros({rows, dim}, DType::float64);
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t row = index.data<std::int32_t>()[t];
      for (std::int64_t d = 0; d < dim; ++d) {
        expected.data<double>()[t * dim + d] = table.data<double>()[row * dim + d];
        expected_grad.data<double>()[row * dim + d] += dy.data<double>()[t * dim + d];
      }
    }
    const Var leaf = Var::leaf(table);
    const Var y = embedding(leaf, index);
    CHECK(same_bits(y.value(), expected));
    backward(y, dy);
    // The same additions in the same order: equal to the bit.
    CHECK(same_bits(leaf.grad(), expected_grad));

    const Var leaf32 = Var::leaf(table.to(DType::float32));
    const Var y32 = embedding(leaf32, index);
    CHECK(same_bits(y32.value(), expected.to(DType::float32)));
    backward(y32, dy.to(DType::float32));
    CHECK(relative_error(leaf32.grad(), expected_grad) < 1e-6);
  }
}

TEST_CASE("embedding refuses indices and shapes that do not fit") {
  const Tensor table = random_tensor({3, 2}, 1);
  const auto at = [](std::vector<std::int32_t> index) { return Tensor::from(index); };
  CHECK(error_of([&] {
          embedding(table, at({0, 2, 3, -1}));
        }) == "embedding: index[2] is 3, the table has rows 0..2");
  CHECK(error_of([&] { embedding(table, at({-1})); }) ==
        "embedding: index[0] is -1, the table has rows 0..2");
  CHECK(error_of([&] { embedding(table, Tensor::zeros({2}, DType::int64)); }) ==
        "embedding: index is int64, expected int32");
  CHECK(error_of([&] { embedding(random_tensor({3}, 1), at({0})); }) ==
        "embedding: table is [3] and index is [1], expected [R, D] and [T]");
}

TEST_CASE("embedding on CUDA equals the CPU, the same to the bit in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  // rows, dim, tokens: nothing; one part of the indices; many; a table larger than a warp's part in
  // both directions; more rows than indices
  for (const auto& [rows, dim, count] : std::vector<std::array<std::int64_t, 3>>{{1, 1, 1},
                                                                                 {4, 0, 2},
                                                                                 {4, 3, 0},
                                                                                 {7, 5, 40},
                                                                                 {3, 33, 1000},
                                                                                 {65, 130, 333},
                                                                                 {1000, 16, 37}}) {
    INFO(rows << " " << dim << " " << count);
    const Tensor index = some_index(count, static_cast<std::uint32_t>(rows));
    check_on_cuda([&](std::span<const Var> in) { return embedding(in[0], index); },
                  {random_tensor({rows, dim}, 1)});
  }
  // Nothing can throw there.
  const Tensor index = Tensor::from(std::vector<std::int32_t>{1, -1, 2}).to(kCuda);
  const Var table = Var::leaf(Tensor::full({2, 3}, 5).to(kCuda));
  const Var y = embedding(table, index);
  for (std::int64_t r = 0; r < 3; ++r) {
    const Tensor row = y.value().to(kCpu).rows(r, r + 1);
    for (const float number : row.values<float>()) CHECK(std::isnan(number) == (r > 0));
  }
  backward(y, Tensor::full({3, 3}, 1).to(kCuda));
  const Tensor expected = Tensor::from(std::vector<float>{0, 0, 0, 1, 1, 1}, Shape{2, 3});
  CHECK(same_bits(table.grad().to(kCpu), expected));
}
