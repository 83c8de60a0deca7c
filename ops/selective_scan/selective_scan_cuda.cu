#include "engine/check.h"
#include "ops/selective_scan/selective_scan_kernels.h"

namespace hax {

void selective_scan_forward(Cuda, const ScanInputs&, const Tensor&, const Sequences&, Tensor&,
                            Tensor&, Tensor&) {
  throw Error("selective_scan_forward: no CUDA kernel yet");
}

void selective_scan_backward(Cuda, const Tensor&, const Tensor&, const ScanInputs&, const Tensor&,
                             const Sequences&, ScanGradients&) {
  throw Error("selective_scan_backward: no CUDA kernel yet");
}

}  // namespace hax
