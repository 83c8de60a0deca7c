#include <Eigen/Core>
#include <algorithm>

#include "engine/dispatch.h"
#include "engine/parallel.h"
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

// c = a op(b) or c += a op(b), with the bits of a row of c depending on that row of a and on b
// alone: not on how many rows there are, nor on where the row stands. Models rely on it: a later
// token must not change an earlier output, and rows may be computed in a table of any size. Eigen's
// kernel takes four rows at a time and treats the rows left over, very small products and single
// rows differently, so those are filled up or computed here.
constexpr std::int64_t kRowBlock = 4;
// Eigen turns to another way of multiplying when rows + depth + columns are below 20.
constexpr std::int64_t kSmallest = 20 - kRowBlock;

template <class T, class B>
void multiply_rows(const Eigen::Map<const Matrix<T>>& a, const B& b, bool add,
                   Eigen::Map<Matrix<T>>& c) {
  const std::int64_t depth = a.cols(), columns = b.cols();
  if (depth + columns < kSmallest) {
    for (std::int64_t r = 0; r < a.rows(); ++r) {
      for (std::int64_t n = 0; n < columns; ++n) {
        T sum = 0;
        for (std::int64_t k = 0; k < depth; ++k) sum += a(r, k) * b(k, n);
        c(r, n) = add ? c(r, n) + sum : sum;
      }
    }
    return;
  }
  const std::int64_t whole = a.rows() / kRowBlock * kRowBlock, rest = a.rows() - whole;
  if (whole > 0) {
    auto top = c.topRows(whole);
    multiply(a.topRows(whole), b, add, top);
  }
  if (rest == 0) return;
  Matrix<T> filled = Matrix<T>::Zero(kRowBlock, depth), product(kRowBlock, columns);
  filled.topRows(rest) = a.bottomRows(rest);
  multiply(filled, b, false, product);
  if (add) {
    c.bottomRows(rest) += product.topRows(rest);
  } else {
    c.bottomRows(rest) = product.topRows(rest);
  }
}

// The same on all threads where there are many rows.
template <class T, class B>
void multiply_by_rows(const Eigen::Map<const Matrix<T>>& a, const B& b, bool add,
                      Eigen::Map<Matrix<T>>& c) {
  parallel_rows(a.rows(), [&](std::int64_t begin, std::int64_t end) {
    const Eigen::Map<const Matrix<T>> from(a.data() + begin * a.cols(), end - begin, a.cols());
    Eigen::Map<Matrix<T>> to(c.data() + begin * c.cols(), end - begin, c.cols());
    multiply_rows<T>(from, b, add, to);
  });
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
    } else if (transpose_a && !add) {
      // The gradient of a weight: a sum over rows, of which there may be many.
      sum_of_pieces(left.rows(), c, [&](std::int64_t begin, std::int64_t end, Tensor& sum) {
        Eigen::Map<Matrix<T>> part(sum.data<T>(), c.size(0), c.size(1));
        const auto rows = end - begin;
        multiply(left.middleRows(begin, rows).transpose(), right.middleRows(begin, rows), true,
                 part);
      });
    } else if (transpose_a) {
      multiply(left.transpose(), right, true, result);
    } else if (transpose_b) {
      multiply_by_rows<T>(left, right.transpose(), add, result);
    } else {
      multiply_by_rows<T>(left, right, add, result);
    }
  });
}

void split_columns(Cpu, const Tensor& x, std::vector<Tensor>& parts) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t rows = x.size(0), stride = x.size(1);
    parallel_rows(rows, [&](std::int64_t begin, std::int64_t end) {
      const T* from = x.data<T>();
      for (Tensor& part : parts) {
        const std::int64_t width = part.size(1);
        T* to = part.data<T>();
        for (std::int64_t r = begin; r < end; ++r) {
          const T* in = from + r * stride;
          T* out = to + r * width;
#pragma omp simd
          for (std::int64_t c = 0; c < width; ++c) out[c] = in[c];
        }
        from += width;
      }
    });
  });
}

void join_columns(Cpu, std::span<const Tensor> parts, const std::vector<std::int64_t>& widths,
                  Tensor& x) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t rows = x.size(0), stride = x.size(1);
    parallel_rows(rows, [&](std::int64_t begin, std::int64_t end) {
      T* to = x.data<T>();
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const std::int64_t width = widths[i];
        const T* from = parts[i].defined() ? parts[i].data<T>() : nullptr;
        for (std::int64_t r = begin; r < end; ++r) {
          T* out = to + r * stride;
          if (from == nullptr) {
            std::fill_n(out, width, T{0});
            continue;
          }
          const T* in = from + r * width;
#pragma omp simd
          for (std::int64_t c = 0; c < width; ++c) out[c] = in[c];
        }
        to += width;
      }
    });
  });
}

void broadcast_rows(Cpu, const Tensor& row, Tensor& y) {
  visit_float(row.dtype(), [&]<class T>() {
    const std::int64_t rows = y.size(0), dim = y.size(1);
    const T* from = row.data<T>();
    T* to = y.data<T>();
    parallel_rows(rows, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) std::copy(from, from + dim, to + r * dim);
    });
  });
}

void sum_rows(Cpu, const Tensor& x, Tensor& sum) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t rows = x.size(0), dim = x.size(1);
    const T* from = x.data<T>();
    sum_of_pieces(rows, sum, [&](std::int64_t begin, std::int64_t end, Tensor& part) {
      T* total = part.data<T>();
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = from + r * dim;
#pragma omp simd
        for (std::int64_t d = 0; d < dim; ++d) total[d] += in[d];
      }
    });
  });
}

}  // namespace hax
