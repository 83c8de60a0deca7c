// Arithmetic of rms_norm, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// x [R, D], weight [D] -> y [R, D], rstd [R] = 1 / sqrt(mean(x^2) + eps).
void rms_norm_forward(Cpu, const Tensor& x, const Tensor& weight, double eps, Tensor& y,
                      Tensor& rstd);
void rms_norm_forward(Cuda, const Tensor& x, const Tensor& weight, double eps, Tensor& y,
                      Tensor& rstd);

/// dy, x [R, D], weight [D], rstd [R] -> dx [R, D], dweight [D].
void rms_norm_backward(Cpu, const Tensor& dy, const Tensor& x, const Tensor& weight,
                       const Tensor& rstd, Tensor& dx, Tensor& dweight);
void rms_norm_backward(Cuda, const Tensor& dy, const Tensor& x, const Tensor& weight,
                       const Tensor& rstd, Tensor& dx, Tensor& dweight);

}  // namespace hax
