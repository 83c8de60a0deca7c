// Matrix products on the device: cuBLAS in nvidia/, Eigen in emulation/. No CUDA header needed.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/dtype.h"

namespace hax::cuda {

/// C = alpha op(A) op(B) + beta C on row-major device memory, queued on the stream. op(A) [m, k],
/// op(B) [k, n], C [m, n]; op transposes when its flag is set, so that A is stored [m, k] or
/// [k, m]. lda, ldb, ldc: elements from one stored row to the next. float32, or bfloat16 with
/// float32 accumulation. With beta = 0, C is not read; with k = 0, C = beta C. C overlaps neither A
/// nor B. Equal calls give equal bits. A graph may capture it. Throws Error for other types,
/// negative sizes, rows that overlap, and what the library refuses.
void gemm(DType dtype, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
          std::int64_t k, float alpha, const void* a, std::int64_t lda, const void* b,
          std::int64_t ldb, float beta, void* c, std::int64_t ldc);

/// `batch` products; those of A, B and C begin stride_a, stride_b and stride_c elements apart. A
/// stride of 0 gives all products the same A or B. `result` is the type of C where that is another:
/// float32 for bfloat16 factors.
void gemm_strided_batched(DType dtype, bool transpose_a, bool transpose_b, std::int64_t m,
                          std::int64_t n, std::int64_t k, float alpha, const void* a,
                          std::int64_t lda, std::int64_t stride_a, const void* b, std::int64_t ldb,
                          std::int64_t stride_b, float beta, void* c, std::int64_t ldc,
                          std::int64_t stride_c, std::int64_t batch,
                          std::optional<DType> result = {});

/// Whether float32 products may round their factors to TF32 (10 bits of mantissa) for speed. Off at
/// the start. For the whole process; a captured graph keeps what held when it was captured.
void allow_tf32(bool allowed);
bool tf32_allowed();

namespace detail {

struct Product {
  DType dtype, result;  ///< of A and B, of C
  bool transpose_a, transpose_b;
  std::int64_t m, n, k;  ///< at least 1
  float alpha;
  const void* a;
  std::int64_t lda, stride_a;
  const void* b;
  std::int64_t ldb, stride_b;
  float beta;
  void* c;
  std::int64_t ldc, stride_c, batch;
};

/// What the two implementations provide.
void multiply(const Product& product);
/// Makes ready what products need; called before a capture, which could not.
void prepare_products();

}  // namespace detail
}  // namespace hax::cuda
