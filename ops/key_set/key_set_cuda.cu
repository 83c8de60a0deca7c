#include "engine/cuda/kernel.cuh"
#include "ops/key_set/key_set_kernels.h"

namespace hax {
namespace {

__global__ void unite_kernel(const std::int32_t* a, const std::int32_t* b, std::int64_t tokens,
                             std::int32_t* death) {
  for (std::int64_t t = cuda::global_thread(); t < tokens; t += cuda::global_threads()) {
    death[t] = a[t] > b[t] ? a[t] : b[t];
  }
}

}  // namespace

void unite_deaths(Cuda, const Tensor& a, const Tensor& b, Tensor& death) {
  cuda::launch(unite_kernel, {cuda::blocks_for(death.numel(), 256), 256}, a.data<std::int32_t>(),
               b.data<std::int32_t>(), death.numel(), death.data<std::int32_t>());
}

}  // namespace hax
