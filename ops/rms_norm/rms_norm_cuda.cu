#include "engine/cuda/kernel.cuh"
#include "engine/cuda/reduce.cuh"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace hax {

using cuda::kWarp;

namespace {

// A warp takes a row: its sums need neither shared memory nor a barrier.
constexpr int kWarps = 8;

__device__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ std::int64_t first_row() {
  return static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
}
__device__ std::int64_t row_stride() {
  return static_cast<std::int64_t>(gridDim.x) * (blockDim.x / kWarp);
}

template <class T>
__global__ void forward_kernel(const T* x, const T* weight, std::int64_t rows, std::int64_t dim,
                               float eps, T* y, float* rstd) {
  const std::int64_t r = first_row();
  if (r >= rows) return;
  const T* in = x + r * dim;
  T* out = y + r * dim;
  float square = 0;
  for (std::int64_t d = lane(); d < dim; d += kWarp) {
    const float value = cuda::to_float(in[d]);
    square += value * value;
  }
  square = cuda::warp_sum(square);
  const float scale = 1 / sqrtf(square / static_cast<float>(dim) + eps);
  if (lane() == 0) rstd[r] = scale;
  for (std::int64_t d = lane(); d < dim; d += kWarp) {
    const float normal = cuda::to_float(in[d]) * scale;
    out[d] = cuda::from_float<T>(normal * cuda::to_float(weight[d]));
  }
}

// partial [blocks, dim]: the block's share of dweight. Every warp gathers its rows' share in its
// own row of shared memory, [warps, dim]; a lane touches its own columns only.
template <class T>
__global__ void backward_kernel(const T* dy, const T* x, const T* weight, const float* rstd,
                                std::int64_t rows, std::int64_t dim, T* dx, float* partial) {
  float* shares = cuda::dynamic_shared<float>();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  float* share = shares + static_cast<int>(threadIdx.x) / kWarp * dim;
  for (std::int64_t d = lane(); d < dim; d += kWarp) share[d] = 0;
  for (std::int64_t r = first_row(); r < rows; r += row_stride()) {
    const T *in = x + r * dim, *dout = dy + r * dim;
    T* din = dx + r * dim;
    const float scale = rstd[r];
    float dot = 0;  // sum over d of (dy w) x_hat
    for (std::int64_t d = lane(); d < dim; d += kWarp) {
      const float normal = cuda::to_float(in[d]) * scale, g = cuda::to_float(dout[d]);
      dot += g * cuda::to_float(weight[d]) * normal;
      share[d] += g * normal;
    }
    const float mean = cuda::warp_sum(dot) / static_cast<float>(dim);
    for (std::int64_t d = lane(); d < dim; d += kWarp) {
      const float normal = cuda::to_float(in[d]) * scale;
      const float g = cuda::to_float(dout[d]) * cuda::to_float(weight[d]);
      din[d] = cuda::from_float<T>(scale * (g - normal * mean));
    }
  }
  __syncthreads();
  for (std::int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += shares[w * dim + d];
    partial[blockIdx.x * dim + d] = sum;
  }
}

}  // namespace

void rms_norm_forward(Cuda, const Tensor& x, const Tensor& weight, double eps, Tensor& y,
                      Tensor& rstd) {
  const std::int64_t rows = x.size(0), dim = x.size(1);
  cuda::visit_storage("rms_norm", x.dtype(), [&]<class T>() {
    cuda::launch(forward_kernel<T>, {cuda::blocks(cuda::ceil_div(rows, kWarps)), kWarps * kWarp},
                 x.data<T>(), weight.data<T>(), rows, dim, static_cast<float>(eps), y.data<T>(),
                 rstd.data<float>());
  });
}

void rms_norm_backward(Cuda, const Tensor& dy, const Tensor& x, const Tensor& weight,
                       const Tensor& rstd, Tensor& dx, Tensor& dweight) {
  const std::int64_t rows = x.size(0), dim = x.size(1);
  // As many warps as the common 48 KB of shared memory hold rows of, at most 8.
  constexpr std::int64_t kShared = 48 << 10;
  std::int64_t warps = kShared / (static_cast<std::int64_t>(sizeof(float)) * (dim + 1));
  warps = warps < 1 ? 1 : (warps > kWarps ? kWarps : warps);
  // Several rows a warp, so that the second stage stays small. No rows: one block writes zeros.
  std::int64_t parts = cuda::ceil_div(rows, warps * 4);
  parts = parts < 1 ? 1 : (parts > 512 ? 512 : parts);
  Tensor partial = Tensor::empty({parts, dim}, DType::float32, kCuda);
  cuda::visit_storage("rms_norm", x.dtype(), [&]<class T>() {
    cuda::launch(backward_kernel<T>,
                 {cuda::blocks(parts), static_cast<unsigned>(warps * kWarp),
                  static_cast<std::size_t>(warps * dim) * sizeof(float)},
                 dy.data<T>(), x.data<T>(), weight.data<T>(), rstd.data<float>(), rows, dim,
                 dx.data<T>(), partial.data<float>());
    cuda::sum_partials(partial.data<float>(), parts, dim, dweight.data<T>());
  });
}

}  // namespace hax
