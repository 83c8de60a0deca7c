// Arithmetic of normalized_running_sum, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"
#include "ops/norm_mode.h"

namespace hax {

/// x [T, N] -> y [T, N], norms float64 = max(norm, 1e-12), [T] (causal) or [S, N] (released).
void running_sum_forward(Cpu, const Tensor& x, const Sequences& sequences, NormMode mode, Tensor& y,
                         Tensor& norms);
void running_sum_forward(Cuda, const Tensor& x, const Sequences& sequences, NormMode mode,
                         Tensor& y, Tensor& norms);

/// dy, y [T, N], norms as above -> dx [T, N].
void running_sum_backward(Cpu, const Tensor& dy, const Tensor& y, const Tensor& norms,
                          const Sequences& sequences, NormMode mode, Tensor& dx);
void running_sum_backward(Cuda, const Tensor& dy, const Tensor& y, const Tensor& norms,
                          const Sequences& sequences, NormMode mode, Tensor& dx);

}  // namespace hax
