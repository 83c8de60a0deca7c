#include "engine/check.h"
#include "ops/sparse_attention/sparse_attention_kernels.h"

namespace hax {

void sparse_attention_forward(Cuda, const Tensor&, const Tensor&, const Tensor&, const KeySet&,
                              const Tensor&, EmptyRows, Tensor&, Tensor&) {
  throw Error("sparse_attention_forward: no CUDA kernel yet");
}

void sparse_attention_backward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                               const Tensor&, const KeySet&, const Tensor&, EmptyRows, Tensor&,
                               Tensor&, Tensor&) {
  throw Error("sparse_attention_backward: no CUDA kernel yet");
}

}  // namespace hax
