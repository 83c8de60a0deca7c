#include "engine/cuda/kernel.cuh"
#include "engine/cuda/reduce.cuh"
#include "ops/elementwise/elementwise_functors.h"
#include "ops/gate/gate_kernels.h"

namespace hax {

namespace {

constexpr unsigned kThreads = 256;

template <class T>
__global__ void forward_kernel(const T* s, const T* a, const T* E, const T* z, std::int64_t rows,
                               std::int64_t dim, T* y) {
  const std::int64_t count = rows * dim;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const float sum = cuda::to_float(s[i]) + cuda::to_float(E[i % dim]) * cuda::to_float(a[i]);
    y[i] = cuda::from_float<T>(sum * functor::Silu{}.value(cuda::to_float(z[i])));
  }
}

template <class T>
__global__ void backward_kernel(const T* dy, const T* s, const T* a, const T* E, const T* z,
                                std::int64_t rows, std::int64_t dim, T* ds, T* da, T* dz) {
  const std::int64_t count = rows * dim;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const float gate = cuda::to_float(z[i]), weight = cuda::to_float(E[i % dim]);
    const float g = cuda::to_float(dy[i]), open = g * functor::Silu{}.value(gate);
    ds[i] = cuda::from_float<T>(open);
    da[i] = cuda::from_float<T>(weight * open);
    const float sum = cuda::to_float(s[i]) + weight * cuda::to_float(a[i]);
    dz[i] = cuda::from_float<T>(g * sum * functor::Silu{}.derivative(gate));
  }
}

// Element (r, d) of dy silu(z) a.
template <class T>
struct WeightGradient {
  std::int64_t dim;
  const T *dy, *a, *z;

  __device__ float operator()(std::int64_t r, std::int64_t d) const {
    const std::int64_t i = r * dim + d;
    return cuda::to_float(dy[i]) * functor::Silu{}.value(cuda::to_float(z[i])) *
           cuda::to_float(a[i]);
  }
};

}  // namespace

void gate_forward(Cuda, const Tensor& s, const Tensor& a, const Tensor& E, const Tensor& z,
                  Tensor& y) {
  cuda::visit_storage("gate", s.dtype(), [&]<class T>() {
    cuda::launch(forward_kernel<T>, {cuda::blocks_for(s.numel(), kThreads), kThreads}, s.data<T>(),
                 a.data<T>(), E.data<T>(), z.data<T>(), s.size(0), s.size(1), y.data<T>());
  });
}

void gate_backward(Cuda, const Tensor& dy, const Tensor& s, const Tensor& a, const Tensor& E,
                   const Tensor& z, Tensor& ds, Tensor& da, Tensor& dE, Tensor& dz) {
  const std::int64_t rows = s.size(0), dim = s.size(1);
  cuda::visit_storage("gate", s.dtype(), [&]<class T>() {
    cuda::launch(backward_kernel<T>, {cuda::blocks_for(s.numel(), kThreads), kThreads},
                 dy.data<T>(), s.data<T>(), a.data<T>(), E.data<T>(), z.data<T>(), rows, dim,
                 ds.data<T>(), da.data<T>(), dz.data<T>());
    cuda::sum_over_rows(rows, dim, WeightGradient<T>{dim, dy.data<T>(), a.data<T>(), z.data<T>()},
                        dE.data<T>());
  });
}

}  // namespace hax
