#include "engine/check.h"
#include "ops/ranking_loss/ranking_loss_kernels.h"

namespace hax {

void ranking_target(Cuda, const Tensor&, const Tensor&, const Tensor&, const Sequences&,
                    const Sequences&, Tensor&) {
  throw Error("ranking_target: no CUDA kernel yet");
}

void ranking_loss_forward(Cuda, const Tensor&, const Tensor&, const Sequences&, double, Tensor&,
                          Tensor&) {
  throw Error("ranking_loss_forward: no CUDA kernel yet");
}

void ranking_loss_backward(Cuda, const Tensor&, const Tensor&, Tensor&) {
  throw Error("ranking_loss_backward: no CUDA kernel yet");
}

}  // namespace hax
