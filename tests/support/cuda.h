// Comparing an op on CUDA with the CPU.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/autograd.h"

namespace hax::test {

/// Half a unit in the last of bfloat16's 8 places, twice: a result is rounded, and so is what it
/// was made of.
inline constexpr double kBf16Bound = 1.0 / 128;

/// Whether this build has a CUDA backend and the machine a device for it.
bool cuda_is_here();
/// Whether that device is the emulation.
bool cuda_is_emulated();

using DifferentiableOp = std::function<Var(std::span<const Var>)>;

/// Checks the result of `op` and the gradients of all inputs (float64, on the CPU) under a random
/// seed gradient: on CUDA in float32 within 1e-5 of the CPU in float64, the same to the bit in a
/// second run; in bfloat16 within kBf16Bound of the CPU in float64 at the same rounded inputs.
/// Distances are those of relative_error(). What else the op needs it brings to the device itself.
void check_on_cuda(const DifferentiableOp& op, const std::vector<Tensor>& inputs);

}  // namespace hax::test
