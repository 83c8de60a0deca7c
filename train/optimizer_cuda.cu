#include <cmath>

#include "engine/cuda/kernel.cuh"
#include "train/optimizer_kernels.h"

namespace hax {

namespace {

constexpr unsigned kThreads = 256;
// Parts of a sum of squares: one block adds them up, a thread each.
constexpr std::int64_t kParts = kThreads;

__global__ void adamw_kernel(AdamWFactors f, std::int64_t count, const float* g, float* p, float* m,
                             float* v) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const float slope = g[i];
    const float first = f.b1 * m[i] + f.rest1 * slope;
    const float second = f.b2 * v[i] + f.rest2 * slope * slope;
    m[i] = first;
    v[i] = second;
    p[i] = p[i] * f.keep - f.rate * first / (std::sqrt(second) * f.root + f.eps);
  }
}

__global__ void square_sum_kernel(std::int64_t count, const float* x, double* parts) {
  double sum = 0;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    sum += static_cast<double>(x[i]) * x[i];
  }
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void add_parts_kernel(std::int64_t parts, const double* x, double* sum) {
  const double own = threadIdx.x < parts ? x[threadIdx.x] : 0;
  const double total = cuda::block_sum(own);
  if (threadIdx.x == 0) *sum = total;
}

__global__ void scale_kernel(std::int64_t count, float factor, float* x) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    x[i] *= factor;
  }
}

}  // namespace

void adamw_update(Cuda, const AdamWFactors& factors, const Tensor& g, Tensor& p, Tensor& m,
                  Tensor& v) {
  cuda::launch(adamw_kernel, {cuda::blocks_for(p.numel(), kThreads), kThreads}, factors, p.numel(),
               g.data<float>(), p.data<float>(), m.data<float>(), v.data<float>());
}

double square_sum(Cuda, const Tensor& x) {
  const std::int64_t wanted = cuda::ceil_div(x.numel(), 4 * kThreads);
  const std::int64_t parts = wanted < kParts ? wanted : kParts;
  Tensor partial = Tensor::empty({parts}, DType::float64, kCuda);
  Tensor sum = Tensor::empty({1}, DType::float64, kCuda);
  cuda::launch(square_sum_kernel, {cuda::blocks(parts), kThreads}, x.numel(), x.data<float>(),
               partial.data<double>());
  cuda::launch(add_parts_kernel, {1, kThreads}, parts, partial.data<double>(), sum.data<double>());
  return sum.item();
}

void scale_all(Cuda, Tensor& x, float factor) {
  cuda::launch(scale_kernel, {cuda::blocks_for(x.numel(), kThreads), kThreads}, x.numel(), factor,
               x.data<float>());
}

}  // namespace hax
