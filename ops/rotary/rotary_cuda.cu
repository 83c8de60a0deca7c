#include "engine/check.h"
#include "ops/rotary/rotary_kernels.h"

namespace hax {

void rotary_turn(Cuda, const Tensor&, const Sequences&, const RotaryOptions&, bool, Tensor&) {
  throw Error("rotary_turn: no CUDA kernel yet");
}

}  // namespace hax
