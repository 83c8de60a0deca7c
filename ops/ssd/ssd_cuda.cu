#include "engine/check.h"
#include "ops/ssd/ssd_kernels.h"

namespace hax {

void ssd_forward(Cuda, const SsdInputs&, const Sequences&, const SsdOptions&, Tensor&, Tensor&,
                 Tensor&) {
  throw Error("ssd_forward: no CUDA kernel yet");
}

void ssd_backward(Cuda, const Tensor&, const Tensor&, const SsdInputs&, const Tensor&,
                  const Sequences&, const SsdOptions&, SsdGradients&) {
  throw Error("ssd_backward: no CUDA kernel yet");
}

}  // namespace hax
