// Products on the device against sums in double.
#if HAX_HAS_CUDA
#include <doctest/doctest.h>

#include "engine/cuda/blas.h"
#include "engine/cuda/runtime.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Case {
  std::int64_t m, n, k, batch;
  bool transpose_a, transpose_b;
  float alpha, beta;
};

// With rows longer than their matrix and products further apart than they need to be.
void compare(const Case& c, DType dtype, double bound) {
  const std::int64_t rows_a = c.transpose_a ? c.k : c.m, lda = (c.transpose_a ? c.m : c.k) + 3;
  const std::int64_t rows_b = c.transpose_b ? c.n : c.k, ldb = (c.transpose_b ? c.k : c.n) + 1;
  const std::int64_t ldc = c.n + 2, stride_a = rows_a * lda + 5, stride_b = rows_b * ldb;
  const std::int64_t stride_c = c.m * ldc + 7;
  const Tensor a = random_tensor({c.batch * stride_a}, 1).to(DType::float32).to(dtype);
  const Tensor b = random_tensor({c.batch * stride_b}, 2).to(DType::float32).to(dtype);
  const Tensor start = random_tensor({c.batch * stride_c}, 3).to(DType::float32).to(dtype);
  const Tensor a64 = a.to(DType::float32).to(DType::float64);
  const Tensor b64 = b.to(DType::float32).to(DType::float64);
  Tensor expected = start.to(DType::float32).to(DType::float64).clone();
  for (std::int64_t p = 0; p < c.batch; ++p) {
    for (std::int64_t i = 0; i < c.m; ++i) {
      for (std::int64_t j = 0; j < c.n; ++j) {
        double sum = 0;
        for (std::int64_t l = 0; l < c.k; ++l) {
          sum += a64.data<double>()[p * stride_a + (c.transpose_a ? l * lda + i : i * lda + l)] *
                 b64.data<double>()[p * stride_b + (c.transpose_b ? j * ldb + l : l * ldb + j)];
        }
        double& element = expected.data<double>()[p * stride_c + i * ldc + j];
        element = c.alpha * sum + (c.beta == 0 ? 0 : c.beta * element);
      }
    }
  }
  const Tensor a_there = a.to(kCuda), b_there = b.to(kCuda);
  const auto run = [&] {
    Tensor out = start.clone().to(kCuda);
    if (c.batch == 1) {
      cuda::gemm(dtype, c.transpose_a, c.transpose_b, c.m, c.n, c.k, c.alpha, a_there.raw(), lda,
                 b_there.raw(), ldb, c.beta, out.raw(), ldc);
    } else {
      cuda::gemm_strided_batched(dtype, c.transpose_a, c.transpose_b, c.m, c.n, c.k, c.alpha,
                                 a_there.raw(), lda, stride_a, b_there.raw(), ldb, stride_b, c.beta,
                                 out.raw(), ldc, stride_c, c.batch);
    }
    return out.to(kCpu);
  };
  const std::int64_t before = cuda::launch_count();
  const Tensor result = run();
  CHECK(cuda::launch_count() == before + (c.m * c.n * c.batch > 0 ? 1 : 0));
  CHECK(relative_error(result.to(DType::float32), expected) <= bound);
  CHECK(same_bits(result, run()));
}

}  // namespace

TEST_CASE("products on CUDA: transposed, padded, batched, of both types") {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const std::int64_t batch : {1, 3}) {
        const Case c{13, 9, 70, batch, transpose_a, transpose_b, 0.5f, 2.0f};
        compare(c, DType::float32, 1e-6);
        compare(c, DType::bfloat16, 4e-3);  // half a unit of the rounded result
      }
    }
  }
  compare({1, 1, 1, 1, false, false, 1, 0}, DType::float32, 1e-6);
  compare({5, 4, 0, 2, false, false, 1, 0}, DType::float32, 0);
  compare({0, 4, 3, 1, false, true, 1, 0}, DType::float32, 0);
}

TEST_CASE("products on CUDA: with beta 0 what stood there is not read") {
  const Tensor ones = Tensor::full({4, 4}, 1).to(kCuda);
  Tensor c = Tensor::full({4, 4}, std::numeric_limits<double>::quiet_NaN()).to(kCuda);
  cuda::gemm(DType::float32, false, false, 4, 4, 4, 1, ones.raw(), 4, ones.raw(), 4, 0, c.raw(), 4);
  CHECK(same_bits(c.to(kCpu), Tensor::full({4, 4}, 4)));
}

TEST_CASE("products on CUDA: captured in a graph, with the first numbers of later ones") {
  Tensor a = Tensor::full({2, 2}, 1).to(kCuda), c = Tensor::zeros({2, 2}).to(kCuda);
  cuda::begin_capture();
  cuda::gemm(DType::float32, false, false, 2, 2, 2, 1, a.raw(), 2, a.raw(), 2, 0, c.raw(), 2);
  void* graph = cuda::end_capture();
  copy(a, Tensor::full({2, 2}, 3));
  cuda::replay_capture(graph);
  CHECK(same_bits(c.to(kCpu), Tensor::full({2, 2}, 18)));
  cuda::free_capture(graph);
}

TEST_CASE("products on CUDA: wrong calls name what is wrong") {
  Tensor a = Tensor::zeros({4}).to(kCuda);
  const auto call = [&](DType dtype, std::int64_t n, std::int64_t ldb) {
    return error_of([&] {
      cuda::gemm(dtype, false, false, 2, n, 2, 1, a.raw(), 2, a.raw(), ldb, 0, a.raw(), 2);
    });
  };
  CHECK(call(DType::float64, 2, 2) == "gemm: float64 on cuda, expected float32 or bfloat16");
  CHECK(call(DType::float32, -1, 2).find("no negative size") != std::string::npos);
  CHECK(call(DType::float32, 2, 1).find("apart") != std::string::npos);
}

#endif  // HAX_HAS_CUDA
