#include <cmath>

#include "engine/cuda/kernel.cuh"
#include "train/optimizer_kernels.h"
#include "train/step_sums.h"

namespace hax {

namespace {

constexpr unsigned kThreads = 256;
// Parts of a sum of squares: a block adds them up, a thread each.
constexpr std::int64_t kMostParts = kThreads;

__global__ void square_parts_kernel(std::int64_t count, const float* x, double* parts) {
  double sum = 0;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    sum += static_cast<double>(x[i]) * x[i];
  }
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// All threads of the block get the same bits.
__device__ double sum_of_parts(const double* parts, std::int64_t count) {
  return cuda::block_sum(threadIdx.x < count ? parts[threadIdx.x] : 0.0);
}

__global__ void add_parts_kernel(const double* parts, std::int64_t count, double* sum) {
  const double total = sum_of_parts(parts, count);
  if (threadIdx.x == 0) *sum = total;
}

__device__ bool is_finite(double x) { return x - x == 0; }

// Every block adds the parts up for itself, so one launch clips and updates.
__global__ void adamw_kernel(const AdamWFactors* factors, const double* parts,
                             std::int64_t part_count, std::int64_t count, const float* g, float* p,
                             float* m, float* v, double* sums) {
  const double square = sum_of_parts(parts, part_count);
  if (cuda::global_thread() == 0) sums[kSquare] = square;
  if (!is_finite(square) || !is_finite(sums[kLmLoss]) || !is_finite(sums[kGateLoss])) return;
  const AdamWFactors f = *factors;
  const double norm = std::sqrt(square);
  const bool clips = f.limit > 0 && norm > f.limit;
  const float scale = clips ? static_cast<float>(f.limit / norm) : 1.0f;
  bool bad = false;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const float slope = g[i] * scale;
    const float first = f.b1 * m[i] + f.rest1 * slope;
    const float second = f.b2 * v[i] + f.rest2 * slope * slope;
    const float value = p[i] * f.keep - f.rate * first / (std::sqrt(second) * f.root + f.eps);
    m[i] = first;
    v[i] = second;
    p[i] = value;
    bad = bad || !is_finite(value);
  }
  if (bad) sums[kBadUpdate] = 1;  // whoever writes it writes the same
}

// One block a part.
Tensor square_parts(const Tensor& x) {
  const std::int64_t wanted = cuda::ceil_div(x.numel(), 4 * kThreads);
  const std::int64_t parts = wanted < kMostParts ? wanted : kMostParts;
  Tensor partial = Tensor::empty({parts}, DType::float64, kCuda);
  cuda::launch(square_parts_kernel, {cuda::blocks(parts), kThreads}, x.numel(), x.data<float>(),
               partial.data<double>());
  return partial;
}

}  // namespace

void clipped_adamw_update(Cuda, const Tensor& factors, const Tensor& g, Tensor& p, Tensor& m,
                          Tensor& v, Tensor& sums) {
  const Tensor parts = square_parts(g);
  cuda::launch(adamw_kernel, {cuda::blocks_for(p.numel(), kThreads), kThreads},
               reinterpret_cast<const AdamWFactors*>(factors.data<std::uint8_t>()),
               parts.data<double>(), parts.numel(), p.numel(), g.data<float>(), p.data<float>(),
               m.data<float>(), v.data<float>(), sums.data<double>());
}

double square_sum(Cuda, const Tensor& x) {
  const Tensor parts = square_parts(x);
  Tensor sum = Tensor::empty({1}, DType::float64, kCuda);
  cuda::launch(add_parts_kernel, {1, kThreads}, parts.data<double>(), parts.numel(),
               sum.data<double>());
  return sum.item();
}

}  // namespace hax
