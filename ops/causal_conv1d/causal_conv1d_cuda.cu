#include "engine/check.h"
#include "ops/causal_conv1d/causal_conv1d_kernels.h"

namespace hax {

void causal_conv1d_forward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Sequences&,
                           Activation, Tensor&) {
  throw Error("causal_conv1d_forward: no CUDA kernel yet");
}

void causal_conv1d_backward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                            const Sequences&, Activation, Tensor&, Tensor&, Tensor&) {
  throw Error("causal_conv1d_backward: no CUDA kernel yet");
}

}  // namespace hax
