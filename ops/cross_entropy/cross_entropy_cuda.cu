#include "engine/check.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"

namespace hax {

void cross_entropy_forward(Cuda, const Tensor&, const Tensor&, double, Tensor&, Tensor&, Tensor&) {
  throw Error("cross_entropy_forward: no CUDA kernel yet");
}

void cross_entropy_backward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                            const Tensor&, double, Tensor&) {
  throw Error("cross_entropy_backward: no CUDA kernel yet");
}

void sample_accuracy(Cuda, const Tensor&, const Tensor&, const Sequences&, Tensor&) {
  throw Error("sample_accuracy: no CUDA kernel yet");
}

}  // namespace hax
