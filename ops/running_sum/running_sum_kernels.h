// Arithmetic of normalized_running_sum, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"
#include "ops/norm_mode.h"

namespace hax {

/// x [T, N]; initial float64 [S, N], undefined: zero (always with released) -> y [T, N]; norms
/// float64 = max(norm, 1e-12), [T] (causal) or [S, N] (released); final_sum float64 [S, N].
void running_sum_forward(Cpu, const Tensor& x, const Tensor& initial, const Sequences& sequences,
                         NormMode mode, Tensor& y, Tensor& norms, Tensor& final_sum);
void running_sum_forward(Cuda, const Tensor& x, const Tensor& initial, const Sequences& sequences,
                         NormMode mode, Tensor& y, Tensor& norms, Tensor& final_sum);

/// dy [T, N] and dfinal float64 [S, N], either undefined: zero; y and norms as above -> dx [T, N];
/// dinitial float64 [S, N], undefined: not wanted.
void running_sum_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const Tensor& y,
                          const Tensor& norms, const Sequences& sequences, NormMode mode,
                          Tensor& dx, Tensor& dinitial);
void running_sum_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const Tensor& y,
                          const Tensor& norms, const Sequences& sequences, NormMode mode,
                          Tensor& dx, Tensor& dinitial);

}  // namespace hax
