#include <cmath>

#include "engine/cuda/kernel.cuh"
#include "ops/cross_entropy/cross_entropy_kernels.h"

namespace hax {

using cuda::kWarp;

namespace {

// A warp takes a row.
constexpr int kWarps = 8;

// Where nothing can throw, a label beyond the classes makes its row's result this.
__device__ float not_a_number() { return __int_as_float(0x7fc00000); }

__device__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ std::int64_t row_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
}
unsigned blocks_of_rows(std::int64_t rows) { return cuda::blocks(cuda::ceil_div(rows, kWarps)); }

// losses [R]: what each row adds, 0 for a masked one.
template <class T>
__global__ void forward_kernel(const T* logits, const std::int32_t* labels, std::int64_t rows,
                               std::int64_t classes, float* peak, float* rsum, double* losses) {
  const std::int64_t r = row_of_warp();
  if (r >= rows) return;
  const std::int32_t label = labels[r];
  if (label < 0) {
    if (lane() == 0) losses[r] = 0;
    return;
  }
  const T* x = logits + r * classes;
  float top = cuda::to_float(x[0]);
  for (std::int64_t v = lane(); v < classes; v += kWarp) {
    const float value = cuda::to_float(x[v]);
    top = value > top ? value : top;
  }
  top = cuda::warp_max(top);
  float sum = 0;
  for (std::int64_t v = lane(); v < classes; v += kWarp) sum += expf(cuda::to_float(x[v]) - top);
  sum = cuda::warp_sum(sum);
  if (lane() != 0) return;
  peak[r] = top;
  rsum[r] = 1 / sum;
  // The difference before the sum: log(sum) is small where top may be large.
  const float rest = label < classes ? top - cuda::to_float(x[label]) : not_a_number();
  losses[r] = static_cast<double>(logf(sum)) + static_cast<double>(rest);
}

// One block. A thread adds every blockDim-th row in order, then the block its threads.
__global__ void sum_kernel(const double* losses, std::int64_t rows, double divisor, float* loss) {
  double sum = 0;
  for (std::int64_t r = threadIdx.x; r < rows; r += blockDim.x) sum += losses[r];
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / divisor);
}

template <class T>
__global__ void backward_kernel(const float* dloss, const T* logits, const std::int32_t* labels,
                                const float* peak, const float* rsum, std::int64_t rows,
                                std::int64_t classes, double divisor, T* dlogits) {
  const std::int64_t r = row_of_warp();
  if (r >= rows) return;
  const std::int32_t label = labels[r];
  T* dx = dlogits + r * classes;
  if (label < 0) {
    for (std::int64_t v = lane(); v < classes; v += kWarp) dx[v] = cuda::from_float<T>(0);
    return;
  }
  const T* x = logits + r * classes;
  float factor = static_cast<float>(static_cast<double>(*dloss) / divisor);
  if (label >= classes) factor = not_a_number();
  const float top = peak[r], scale = factor * rsum[r];
  for (std::int64_t v = lane(); v < classes; v += kWarp) {
    const float p = expf(cuda::to_float(x[v]) - top) * scale;
    dx[v] = cuda::from_float<T>(v == label ? p - factor : p);
  }
}

// A block takes a sample, a warp of it a row at a time: as many warps as there are, since rows wait
// for their label, then for its logit, then for the others.
constexpr int kAccuracyWarps = 32;
template <class T>
__global__ void __launch_bounds__(kAccuracyWarps* kWarp)
    accuracy_kernel(const T* logits, const std::int32_t* labels, const std::int32_t* offsets,
                    std::int64_t classes, double* accuracy) {
  int asked = 0, right = 0;
  for (std::int64_t r = offsets[blockIdx.x] + threadIdx.x / kWarp; r < offsets[blockIdx.x + 1];
       r += kAccuracyWarps) {
    const std::int32_t label = labels[r];
    if (label < 0) continue;
    // Logits that beat the label's: greater, or equal and earlier. A NaN on either side counts.
    const T* x = logits + r * classes;
    const float mine = label < classes ? cuda::to_float(x[label]) : not_a_number();
    bool beaten = false;
    for (std::int64_t v = lane(); v < classes; v += kWarp) {
      const float other = cuda::to_float(x[v]);
      beaten = beaten || (v < label && !(other < mine)) || (v > label && !(other <= mine));
    }
    const int any = __any_sync(cuda::kAllLanes, beaten ? 1 : 0);
    if (lane() != 0) continue;
    ++asked;
    right += any == 0 ? 1 : 0;
  }
  asked = cuda::block_sum(asked);
  right = cuda::block_sum(right);
  if (threadIdx.x == 0) {
    accuracy[blockIdx.x] = asked == 0 ? static_cast<double>(not_a_number())
                                      : static_cast<double>(right) / static_cast<double>(asked);
  }
}

}  // namespace

void cross_entropy_forward(Cuda, const Tensor& logits, const Tensor& labels, double divisor,
                           Tensor& loss, Tensor& peak, Tensor& rsum) {
  const std::int64_t rows = logits.size(0);
  Tensor losses = Tensor::empty({rows}, DType::float64, kCuda);
  cuda::visit_storage("cross_entropy", logits.dtype(), [&]<class T>() {
    cuda::launch(forward_kernel<T>, {blocks_of_rows(rows), kWarps * kWarp}, logits.data<T>(),
                 labels.data<std::int32_t>(), rows, logits.size(1), peak.data<float>(),
                 rsum.data<float>(), losses.data<double>());
  });
  cuda::launch(sum_kernel, {1u, kWarps * kWarp}, losses.data<double>(), rows, divisor,
               loss.data<float>());
}

void cross_entropy_backward(Cuda, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            const Tensor& peak, const Tensor& rsum, double divisor,
                            Tensor& dlogits) {
  const std::int64_t rows = logits.size(0);
  cuda::visit_storage("cross_entropy", logits.dtype(), [&]<class T>() {
    cuda::launch(backward_kernel<T>, {blocks_of_rows(rows), kWarps * kWarp}, dloss.data<float>(),
                 logits.data<T>(), labels.data<std::int32_t>(), peak.data<float>(),
                 rsum.data<float>(), rows, logits.size(1), divisor, dlogits.data<T>());
  });
}

void sample_accuracy(Cuda, const Tensor& logits, const Tensor& labels, const Sequences& samples,
                     Tensor& accuracy) {
  const Tensor offsets = samples.offsets_on(kCuda);
  cuda::visit_storage("sample_accuracy", logits.dtype(), [&]<class T>() {
    cuda::launch(accuracy_kernel<T>, {cuda::blocks(samples.count()), kAccuracyWarps * kWarp},
                 logits.data<T>(), labels.data<std::int32_t>(), offsets.data<std::int32_t>(),
                 logits.size(1), accuracy.data<double>());
  });
}

}  // namespace hax
