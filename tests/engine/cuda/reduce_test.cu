// Sums over rows: right for every cut into blocks and parts, and the same bits every time.
#include "engine/cuda/reduce.cuh"

#include <doctest/doctest.h>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::cuda;
using namespace hax::test;

namespace {

// The element and its square times a weight: f is not just a read.
struct Weighted {
  const float* table;
  std::int64_t dim;
  __device__ float operator()(std::int64_t r, std::int64_t d) const {
    const float x = table[r * dim + d];
    return x + 0.5f * x * x;
  }
};

template <class T>
Tensor sum(const Tensor& table, DType dtype) {
  const std::int64_t rows = table.size(0), dim = table.size(1);
  Tensor out = Tensor::empty({dim}, dtype, kCuda);
  sum_over_rows<T>(rows, dim, Weighted{table.data<float>(), dim}, out.data<T>());
  return out.to(kCpu);
}

Tensor expected(const Tensor& table) {
  const std::int64_t rows = table.size(0), dim = table.size(1);
  Tensor out = Tensor::zeros({dim}, DType::float64);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t d = 0; d < dim; ++d) {
      const double x = table.data<float>()[r * dim + d];
      out.data<double>()[d] += x + 0.5 * x * x;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("cuda: sums over rows for sizes around the cuts") {
  if (!why_no_device().empty()) return;
  for (const std::int64_t rows : {0, 1, 7, 8, 9, 64, 65, 1000}) {
    for (const std::int64_t dim : {1, 31, 32, 33, 70}) {
      INFO(rows << " rows of " << dim);
      const Tensor table = random_tensor({rows, dim}, 5, DType::float32);
      const Tensor on_device = table.to(kCuda);
      const Tensor got = sum<float>(on_device, DType::float32);
      CHECK(relative_error(got.to(DType::float64), expected(table)) <= 1e-6);
      CHECK(same_bits(got, sum<float>(on_device, DType::float32)));
    }
  }
}

TEST_CASE("cuda: sums over more rows than parts of 64") {
  if (!why_no_device().empty()) return;
  CHECK(row_parts(0) == 0);
  CHECK(row_parts(64) == 1);
  CHECK(row_parts(65) == 2);
  CHECK(row_parts(1 << 20) == 256);
  const Tensor table = random_tensor({20001, 3}, 6, DType::float32);
  CHECK(relative_error(sum<float>(table.to(kCuda), DType::float32).to(DType::float64),
                       expected(table)) <= 1e-6);
}

TEST_CASE("cuda: sums over rows are rounded to bfloat16 once") {
  if (!why_no_device().empty()) return;
  const Tensor table = random_tensor({300, 40}, 7, DType::float32);
  const Tensor on_device = table.to(kCuda);
  const Tensor rounded = sum<float>(on_device, DType::float32).to(DType::bfloat16);
  CHECK(same_bits(sum<Bfloat16>(on_device, DType::bfloat16), rounded));
}
