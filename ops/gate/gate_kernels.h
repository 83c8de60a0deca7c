// Arithmetic of gate, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// s, a, z [R, D], E [D] -> y [R, D].
void gate_forward(Cpu, const Tensor& s, const Tensor& a, const Tensor& E, const Tensor& z,
                  Tensor& y);
void gate_forward(Cuda, const Tensor& s, const Tensor& a, const Tensor& E, const Tensor& z,
                  Tensor& y);

/// dy [R, D] -> ds, da, dz [R, D], dE [D].
void gate_backward(Cpu, const Tensor& dy, const Tensor& s, const Tensor& a, const Tensor& E,
                   const Tensor& z, Tensor& ds, Tensor& da, Tensor& dE, Tensor& dz);
void gate_backward(Cuda, const Tensor& dy, const Tensor& s, const Tensor& a, const Tensor& E,
                   const Tensor& z, Tensor& ds, Tensor& da, Tensor& dE, Tensor& dz);

}  // namespace hax
