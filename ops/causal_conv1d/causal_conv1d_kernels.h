// Arithmetic of causal_conv1d, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"
#include "ops/causal_conv1d/causal_conv1d.h"

namespace hax {

/// x [T, C], weight [C, 1, W], bias [C] or undefined -> y [T, C].
void causal_conv1d_forward(Cpu, const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Sequences& sequences, Activation activation, Tensor& y);
void causal_conv1d_forward(Cuda, const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Sequences& sequences, Activation activation, Tensor& y);

/// dy, x [T, C], weight [C, 1, W], bias [C] or undefined -> dx [T, C], dweight [C, 1, W], dbias [C]
/// (undefined where bias is).
void causal_conv1d_backward(Cpu, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& bias, const Sequences& sequences, Activation activation,
                            Tensor& dx, Tensor& dweight, Tensor& dbias);
void causal_conv1d_backward(Cuda, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& bias, const Sequences& sequences, Activation activation,
                            Tensor& dx, Tensor& dweight, Tensor& dbias);

}  // namespace hax
