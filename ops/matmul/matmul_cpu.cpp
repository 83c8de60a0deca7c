#include <Eigen/Core>
#include <algorithm>

#include "engine/dispatch.h"
#include "ops/matmul/matmul_kernels.h"

namespace hax {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class A, class B, class C>
void multiply(const A& a, const B& b, bool add, C& c) {
  if (add) {
    c.noalias() += a * b;
  } else {
    c.noalias() = a * b;
  }
}

}  // namespace

void gemm(Cpu, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool add,
          Tensor& c) {
  visit_float(c.dtype(), [&]<class T>() {
    const Eigen::Map<const Matrix<T>> left(a.data<T>(), a.size(0), a.size(1));
    const Eigen::Map<const Matrix<T>> right(b.data<T>(), b.size(0), b.size(1));
    Eigen::Map<Matrix<T>> result(c.data<T>(), c.size(0), c.size(1));
    if (transpose_a && transpose_b) {
      multiply(left.transpose(), right.transpose(), add, result);
    } else if (transpose_a) {
      multiply(left.transpose(), right, add, result);
    } else if (transpose_b) {
      multiply(left, right.transpose(), add, result);
    } else {
      multiply(left, right, add, result);
    }
  });
}

void broadcast_rows(Cpu, const Tensor& row, Tensor& y) {
  visit_float(row.dtype(), [&]<class T>() {
    const std::int64_t rows = y.size(0), dim = y.size(1);
    const T* from = row.data<T>();
    T* to = y.data<T>();
    for (std::int64_t r = 0; r < rows; ++r) std::copy(from, from + dim, to + r * dim);
  });
}

void sum_rows(Cpu, const Tensor& x, Tensor& sum) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t rows = x.size(0), dim = x.size(1);
    fill(sum, 0);
    const T* from = x.data<T>();
    T* total = sum.data<T>();
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* in = from + r * dim;
#pragma omp simd
      for (std::int64_t d = 0; d < dim; ++d) total[d] += in[d];
    }
  });
}

}  // namespace hax
