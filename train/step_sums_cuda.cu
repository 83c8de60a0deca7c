#include "engine/cuda/kernel.cuh"
#include "train/step_kernels.h"
#include "train/step_sums.h"

namespace hax {

namespace {

constexpr unsigned kThreads = 256;

// One block: a thread adds up every 256th sample, then the block its threads.
__global__ void add_sums_kernel(const float* lm_loss, const float* gate_loss,
                                const double* accuracy, std::int64_t samples, double* sums) {
  double right = 0, counted = 0;
  for (std::int64_t s = threadIdx.x; s < samples; s += blockDim.x) {
    const double share = accuracy[s];
    if (share != share) continue;  // NaN: no targets
    right += share;
    counted += 1;
  }
  right = cuda::block_sum(right);
  counted = cuda::block_sum(counted);
  if (threadIdx.x != 0) return;
  sums[kLmLoss] += *lm_loss;
  if (gate_loss != nullptr) sums[kGateLoss] += *gate_loss;
  sums[kAccuracy] += right;
  sums[kSamples] += counted;
}

}  // namespace

void add_step_sums(Cuda, const Tensor& lm_loss, const Tensor& gate_loss, const Tensor& accuracy,
                   Tensor& sums) {
  cuda::launch(add_sums_kernel, {1, kThreads}, lm_loss.data<float>(),
               gate_loss.defined() ? gate_loss.data<float>() : nullptr, accuracy.data<double>(),
               accuracy.numel(), sums.data<double>());
}

}  // namespace hax
