#include "engine/check.h"
#include "ops/running_sum/running_sum_kernels.h"

namespace hax {

void running_sum_forward(Cuda, const Tensor&, const Tensor&, const Sequences&, NormMode, Tensor&,
                         Tensor&, Tensor&) {
  throw Error("running_sum_forward: no CUDA kernel yet");
}

void running_sum_backward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                          const Sequences&, NormMode, Tensor&, Tensor&) {
  throw Error("running_sum_backward: no CUDA kernel yet");
}

}  // namespace hax
