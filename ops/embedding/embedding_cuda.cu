#include "engine/check.h"
#include "ops/embedding/embedding_kernels.h"

namespace hax {

void embedding_forward(Cuda, const Tensor&, const Tensor&, Tensor&) {
  throw Error("embedding_forward: no CUDA kernel yet");
}

void embedding_backward(Cuda, const Tensor&, const Tensor&, Tensor&) {
  throw Error("embedding_backward: no CUDA kernel yet");
}

}  // namespace hax
