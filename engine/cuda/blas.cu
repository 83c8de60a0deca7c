// What both implementations of blas.h share: checks and products without terms.
#include "engine/cuda/blas.h"

#include <atomic>

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {
namespace {

constexpr unsigned kThreads = 256;

std::atomic<bool> tf32 = false;

// C = beta C: what a product over k = 0 leaves.
template <class T>
__global__ void scale_kernel(T* c, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                             std::int64_t stride, std::int64_t batch, float beta) {
  for (std::int64_t i = global_thread(); i < batch * rows * columns; i += global_threads()) {
    const std::int64_t row = i / columns;
    T& element = c[row / rows * stride + row % rows * row_stride + i % columns];
    element = from_float<T>(beta == 0 ? 0.0f : beta * to_float(element));
  }
}

void scale_result(const detail::Product& p) {
  visit_storage("gemm", p.result, [&]<class T>() {
    launch(scale_kernel<T>, {blocks_for(p.batch * p.m * p.n, kThreads), kThreads},
           static_cast<T*>(p.c), p.m, p.n, p.ldc, p.stride_c, p.batch, p.beta);
  });
}

}  // namespace

void allow_tf32(bool allowed) { tf32 = allowed; }
bool tf32_allowed() { return tf32; }

void gemm_strided_batched(DType dtype, bool transpose_a, bool transpose_b, std::int64_t m,
                          std::int64_t n, std::int64_t k, float alpha, const void* a,
                          std::int64_t lda, std::int64_t stride_a, const void* b, std::int64_t ldb,
                          std::int64_t stride_b, float beta, void* c, std::int64_t ldc,
                          std::int64_t stride_c, std::int64_t batch, std::optional<DType> result) {
  check(dtype == DType::float32 || dtype == DType::bfloat16,
        "gemm: {} on cuda, expected float32 or bfloat16", name_of(dtype));
  const DType result_dtype = result.value_or(dtype);
  check(result_dtype == dtype || result_dtype == DType::float32,
        "gemm: {} factors and a {} result, expected one type or a float32 result", name_of(dtype),
        name_of(result_dtype));
  check(m >= 0 && n >= 0 && k >= 0 && batch >= 0,
        "gemm: {} products of {} x {} x {}, expected no negative size", batch, m, n, k);
  if (m == 0 || n == 0 || batch == 0) return;
  const std::int64_t columns_a = transpose_a ? m : k, columns_b = transpose_b ? k : n;
  check(lda >= columns_a && ldb >= columns_b && ldc >= n,
        "gemm: rows of {}, {} and {} elements lie {}, {} and {} apart", columns_a, columns_b, n,
        lda, ldb, ldc);
  check(batch == 1 || (stride_a >= 0 && stride_b >= 0 && stride_c >= (m - 1) * ldc + n),
        "gemm: products {}, {} and {} elements apart overlap", stride_a, stride_b, stride_c);
  const detail::Product product{
      dtype, result_dtype, transpose_a, transpose_b, m, n,   k,        alpha, a, lda, stride_a,
      b,     ldb,          stride_b,    beta,        c, ldc, stride_c, batch};
  if (k == 0) return scale_result(product);
  detail::multiply(product);
  count_launch();
}

void gemm(DType dtype, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
          std::int64_t k, float alpha, const void* a, std::int64_t lda, const void* b,
          std::int64_t ldb, float beta, void* c, std::int64_t ldc) {
  gemm_strided_batched(dtype, transpose_a, transpose_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta,
                       c, ldc, 0, 1);
}

}  // namespace hax::cuda
