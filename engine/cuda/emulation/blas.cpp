// Products through Eigen, in the place of cuBLAS.
#include "engine/cuda/blas.h"

#include <Eigen/Core>

#include "engine/bfloat16.h"
#include "engine/cuda/emulation/runtime.h"

namespace hax::cuda {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// op(X) [rows, columns] in float32.
template <class T>
Matrix read(const void* data, bool transpose, std::int64_t rows, std::int64_t columns,
            std::int64_t stride) {
  const T* from = static_cast<const T*>(data);
  Matrix result(rows, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      result(r, c) = static_cast<float>(transpose ? from[c * stride + r] : from[r * stride + c]);
    }
  }
  return result;
}

template <class T, class R>
void multiply_one(const detail::Product& p, const T* a, const T* b, R* c) {
  const Matrix product =
      read<T>(a, p.transpose_a, p.m, p.k, p.lda) * read<T>(b, p.transpose_b, p.k, p.n, p.ldb);
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      R& element = c[i * p.ldc + j];
      const float before = p.beta == 0 ? 0.0f : p.beta * static_cast<float>(element);
      element = static_cast<R>(p.alpha * product(i, j) + before);
    }
  }
}

template <class T, class R>
void multiply_all(const detail::Product& p) {
  for (std::int64_t i = 0; i < p.batch; ++i) {
    multiply_one(p, static_cast<const T*>(p.a) + i * p.stride_a,
                 static_cast<const T*>(p.b) + i * p.stride_b,
                 static_cast<R*>(p.c) + i * p.stride_c);
  }
}

}  // namespace

void detail::prepare_products() {}

void detail::multiply(const Product& product) {
  emulation::submit([product] {
    if (product.dtype == DType::float32) return multiply_all<float, float>(product);
    if (product.result == DType::float32) return multiply_all<Bfloat16, float>(product);
    multiply_all<Bfloat16, Bfloat16>(product);
  });
}

}  // namespace hax::cuda
