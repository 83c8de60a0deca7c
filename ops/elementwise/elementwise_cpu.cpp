#include "engine/dispatch.h"
#include "ops/elementwise/elementwise_kernels.h"

namespace hax {

using functor::BinaryFunction;
using functor::UnaryFunction;

namespace {

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

template <bool kFirst, bool kSecond, class T, class F>
void rows_backward(const F& f, std::int64_t rows, std::int64_t dim, const T* dy, const T* a,
                   const T* b, T* da, T* db) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * dim;
    T* da_row = kFirst ? da + at : nullptr;
    if (r == 0) {
      row_backward<kFirst, kSecond, false>(f, dim, dy, a, b, da_row, db);
    } else {
      row_backward<kFirst, kSecond, true>(f, dim, dy + at, a + at, b, da_row, db);
    }
  }
}

}  // namespace

void unary_forward(Cpu, const Tensor& x, const UnaryFunction& function, Tensor& y) {
  visit_float(x.dtype(), [&]<class T>() {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const std::int64_t count = x.numel();
    std::visit(
        [=](const auto f) {
#pragma omp simd
          for (std::int64_t i = 0; i < count; ++i) out[i] = f.value(in[i]);
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
#pragma omp simd
          for (std::int64_t i = 0; i < count; ++i) din[i] = dout[i] * f.derivative(in[i]);
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
          for (std::int64_t row = 0; row < rows * dim; row += dim) {
#pragma omp simd
            for (std::int64_t d = 0; d < dim; ++d) {
              out[row + d] = f.value(first[row + d], second[d]);
            }
          }
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
            rows_backward<true, true>(f, rows, dim, dout, first, second, dfirst, dsecond);
          } else if (dfirst != nullptr) {
            rows_backward<true, false>(f, rows, dim, dout, first, second, dfirst, dsecond);
          } else if (dsecond != nullptr) {
            rows_backward<false, true>(f, rows, dim, dout, first, second, dfirst, dsecond);
          }
        },
        function);
  });
}

}  // namespace hax
