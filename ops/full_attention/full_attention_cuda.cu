#include "engine/check.h"
#include "ops/full_attention/full_attention_kernels.h"

namespace hax {

void full_attention_forward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                            const Sequences&, const FullAttentionOptions&, Tensor&, Tensor&) {
  throw Error("full_attention_forward: no CUDA kernel yet");
}

void full_attention_backward(Cuda, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                             const Tensor&, const Tensor&, const Tensor&, const Sequences&,
                             const FullAttentionOptions&, Tensor&, Tensor&, Tensor&) {
  throw Error("full_attention_backward: no CUDA kernel yet");
}

}  // namespace hax
