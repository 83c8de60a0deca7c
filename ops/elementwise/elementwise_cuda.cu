#include "engine/cuda/kernel.cuh"
#include "engine/cuda/reduce.cuh"
#include "ops/elementwise/elementwise_kernels.h"

namespace hax {

using functor::BinaryFunction;
using functor::UnaryFunction;

namespace {

constexpr unsigned kThreads = 256;

template <class T, class F>
__global__ void unary_forward_kernel(F f, std::int64_t count, const T* x, T* y) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    y[i] = cuda::from_float<T>(f.value(cuda::to_float(x[i])));
  }
}

template <class T, class F>
__global__ void unary_backward_kernel(F f, std::int64_t count, const T* dy, const T* x, T* dx) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    dx[i] = cuda::from_float<T>(cuda::to_float(dy[i]) * f.derivative(cuda::to_float(x[i])));
  }
}

// Column of element i in rows of `dim`. Division is slow in 64 bits, and hardly ever needed there.
__device__ std::int64_t column(std::int64_t i, std::int64_t dim) {
  if (i < 0x80000000) return static_cast<std::uint32_t>(i) % static_cast<std::uint32_t>(dim);
  return i % dim;
}

template <class T, class F>
__global__ void binary_forward_kernel(F f, std::int64_t count, std::int64_t dim, const T* a,
                                      const T* b, T* y) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const float second = cuda::to_float(b[count == dim ? i : column(i, dim)]);
    y[i] = cuda::from_float<T>(f.value(cuda::to_float(a[i]), second));
  }
}

// da and db: null when not wanted. db only where every b belongs to one a: count == dim.
template <class T, class F>
__global__ void binary_backward_kernel(F f, std::int64_t count, std::int64_t dim, const T* dy,
                                       const T* a, const T* b, T* da, T* db) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const float g = cuda::to_float(dy[i]), first = cuda::to_float(a[i]);
    const float second = cuda::to_float(b[count == dim ? i : column(i, dim)]);
    if (da != nullptr) da[i] = cuda::from_float<T>(g * f.d_first(first, second));
    if (db != nullptr) db[i] = cuda::from_float<T>(g * f.d_second(first, second));
  }
}

// Element (r, d) of dy df/db.
template <class T, class F>
struct SecondGradient {
  F f;
  std::int64_t dim;
  const T *dy, *a, *b;

  __device__ float operator()(std::int64_t r, std::int64_t d) const {
    const std::int64_t i = r * dim + d;
    return cuda::to_float(dy[i]) * f.d_second(cuda::to_float(a[i]), cuda::to_float(b[d]));
  }
};

}  // namespace

void unary_forward(Cuda, const Tensor& x, const UnaryFunction& function, Tensor& y) {
  const std::int64_t count = x.numel();
  cuda::visit_storage("elementwise", x.dtype(), [&]<class T>() {
    std::visit(
        [&]<class F>(const F& f) {
          cuda::launch(unary_forward_kernel<T, F>, {cuda::blocks_for(count, kThreads), kThreads}, f,
                       count, x.data<T>(), y.data<T>());
        },
        function);
  });
}

void unary_backward(Cuda, const Tensor& dy, const Tensor& x, const UnaryFunction& function,
                    Tensor& dx) {
  const std::int64_t count = x.numel();
  cuda::visit_storage("elementwise", x.dtype(), [&]<class T>() {
    std::visit(
        [&]<class F>(const F& f) {
          cuda::launch(unary_backward_kernel<T, F>, {cuda::blocks_for(count, kThreads), kThreads},
                       f, count, dy.data<T>(), x.data<T>(), dx.data<T>());
        },
        function);
  });
}

void binary_forward(Cuda, const Tensor& a, const Tensor& b, const BinaryFunction& function,
                    Tensor& y) {
  const std::int64_t count = a.numel();
  cuda::visit_storage("elementwise", a.dtype(), [&]<class T>() {
    std::visit(
        [&]<class F>(const F& f) {
          cuda::launch(binary_forward_kernel<T, F>, {cuda::blocks_for(count, kThreads), kThreads},
                       f, count, b.numel(), a.data<T>(), b.data<T>(), y.data<T>());
        },
        function);
  });
}

void binary_backward(Cuda, const Tensor& dy, const Tensor& a, const Tensor& b,
                     const BinaryFunction& function, Tensor& da, Tensor& db) {
  const std::int64_t rows = a.size(0), dim = a.size(1), count = a.numel();
  cuda::visit_storage("elementwise", a.dtype(), [&]<class T>() {
    std::visit(
        [&]<class F>(const F& f) {
          T* first = da.defined() ? da.data<T>() : nullptr;
          T* second = db.defined() && rows == 1 ? db.data<T>() : nullptr;
          if (first != nullptr || second != nullptr) {
            cuda::launch(binary_backward_kernel<T, F>,
                         {cuda::blocks_for(count, kThreads), kThreads}, f, count, dim, dy.data<T>(),
                         a.data<T>(), b.data<T>(), first, second);
          }
          if (db.defined() && rows != 1) {
            const SecondGradient<T, F> gradient{f, dim, dy.data<T>(), a.data<T>(), b.data<T>()};
            cuda::sum_over_rows(rows, dim, gradient, db.data<T>());
          }
        },
        function);
  });
}

}  // namespace hax
