#include <vector>

#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/elementwise/elementwise_kernels.h"

namespace hax {

using functor::BinaryFunction;
using functor::UnaryFunction;

namespace {

// The least number of elements worth a piece of their own.
constexpr std::int64_t kElementsWorthAPiece = 64 * kRowsWorthAPiece;

// One row of binary_backward. kFirst, kSecond: which gradients are wanted, together in one loop, so
// that what their derivatives share is computed once. kAdd: db has the sum of earlier rows.
template <bool kFirst, bool kSecond, bool kAdd, class T, class F>
void row_backward(const F& f, std::int64_t dim, const T* dy, const T* a, const T* b, T* da, T* db) {
#pragma omp simd
  for (std::int64_t d = 0; d < dim; ++d) {
    if constexpr (kFirst) da[d] = dy[d] * f.d_first(a[d], b[d]);
    if constexpr (kSecond) {
      const T part = dy[d] * f.d_second(a[d], b[d]);
      db[d] = kAdd ? db[d] + part : part;
    }
  }
}

// Some rows and columns of binary_backward; rows are `stride` apart.
template <bool kFirst, bool kSecond, class T, class F>
void rows_backward(const F& f, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                   const T* dy, const T* a, const T* b, T* da, T* db) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * stride;
    T* da_row = kFirst ? da + at : nullptr;
    if (r == 0) {
      row_backward<kFirst, kSecond, false>(f, columns, dy, a, b, da_row, db);
    } else {
      row_backward<kFirst, kSecond, true>(f, columns, dy + at, a + at, b, da_row, db);
    }
  }
}

// All of it: many rows are cut, with a db for each piece, and so are long ones.
template <bool kFirst, bool kSecond, class T, class F>
void pieces_backward(const F& f, std::int64_t rows, std::int64_t dim, const T* dy, const T* a,
                     const T* b, T* da, T* db) {
  const Pieces pieces(rows, kRowsWorthAPiece);
  const bool apart = kSecond && pieces.number() > 1;
  std::vector<T> parts(static_cast<std::size_t>(apart ? pieces.number() * dim : 0));
  parallel_for(pieces.number(), [&](std::int64_t p) {
    const std::int64_t begin = pieces.begin(p), count = pieces.end(p) - begin;
    T* sum = apart ? parts.data() + p * dim : db;
    const auto columns = [&](std::int64_t first, std::int64_t last) {
      const std::int64_t at = begin * dim + first;
      rows_backward<kFirst, kSecond>(f, count, last - first, dim, dy + at, a + at, b + first,
                                     kFirst ? da + at : nullptr, kSecond ? sum + first : nullptr);
    };
    parallel_rows(dim, columns, kElementsWorthAPiece);
  });
  if (apart) sum_parts(parts.data(), pieces.number(), dim, dim, db);
}

}  // namespace

void unary_forward(Cpu, const Tensor& x, const UnaryFunction& function, Tensor& y) {
  visit_float(x.dtype(), [&]<class T>() {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const std::int64_t count = x.numel();
    std::visit(
        [=](const auto f) {
          const auto piece = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
            for (std::int64_t i = begin; i < end; ++i) out[i] = f.value(in[i]);
          };
          parallel_rows(count, piece, kElementsWorthAPiece);
        },
        function);
  });
}

void unary_backward(Cpu, const Tensor& dy, const Tensor& x, const UnaryFunction& function,
                    Tensor& dx) {
  visit_float(x.dtype(), [&]<class T>() {
    const T *in = x.data<T>(), *dout = dy.data<T>();
    T* din = dx.data<T>();
    const std::int64_t count = x.numel();
    std::visit(
        [=](const auto f) {
          const auto piece = [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
            for (std::int64_t i = begin; i < end; ++i) din[i] = dout[i] * f.derivative(in[i]);
          };
          parallel_rows(count, piece, kElementsWorthAPiece);
        },
        function);
  });
}

void binary_forward(Cpu, const Tensor& a, const Tensor& b, const BinaryFunction& function,
                    Tensor& y) {
  visit_float(a.dtype(), [&]<class T>() {
    const std::int64_t rows = a.size(0), dim = a.size(1);
    const T *first = a.data<T>(), *second = b.data<T>();
    T* out = y.data<T>();
    std::visit(
        [=](const auto f) {
          // Many rows are cut, and so are long ones: equal shapes are one row.
          parallel_rows(rows, [=](std::int64_t begin, std::int64_t end) {
            const auto columns = [=](std::int64_t from, std::int64_t to) {
              for (std::int64_t row = begin * dim; row < end * dim; row += dim) {
#pragma omp simd
                for (std::int64_t d = from; d < to; ++d) {
                  out[row + d] = f.value(first[row + d], second[d]);
                }
              }
            };
            parallel_rows(dim, columns, kElementsWorthAPiece);
          });
        },
        function);
  });
}

void binary_backward(Cpu, const Tensor& dy, const Tensor& a, const Tensor& b,
                     const BinaryFunction& function, Tensor& da, Tensor& db) {
  if (db.defined() && a.size(0) == 0) fill(db, 0);
  visit_float(a.dtype(), [&]<class T>() {
    const std::int64_t rows = a.size(0), dim = a.size(1);
    const T *dout = dy.data<T>(), *first = a.data<T>(), *second = b.data<T>();
    T* dfirst = da.defined() ? da.data<T>() : nullptr;
    T* dsecond = db.defined() ? db.data<T>() : nullptr;
    std::visit(
        [&](const auto f) {
          if (dfirst != nullptr && dsecond != nullptr) {
            pieces_backward<true, true>(f, rows, dim, dout, first, second, dfirst, dsecond);
          } else if (dfirst != nullptr) {
            pieces_backward<true, false>(f, rows, dim, dout, first, second, dfirst, dsecond);
          } else if (dsecond != nullptr) {
            pieces_backward<false, true>(f, rows, dim, dout, first, second, dfirst, dsecond);
          }
        },
        function);
  });
}

}  // namespace hax
