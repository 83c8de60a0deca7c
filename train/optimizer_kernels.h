// Arithmetic of the optimiser, once for each device. All tensors are flat float32 [P].
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// What is the same for every number of an AdamW step.
struct AdamWFactors {
  float b1, b2, rest1, rest2;  ///< of the moments
  float rate, root, eps;       ///< p -= rate m / (sqrt(v) root + eps)
  float keep;                  ///< weight decay: p = p keep - ...
};
void adamw_update(Cpu, const AdamWFactors& factors, const Tensor& g, Tensor& p, Tensor& m,
                  Tensor& v);
void adamw_update(Cuda, const AdamWFactors& factors, const Tensor& g, Tensor& p, Tensor& m,
                  Tensor& v);

/// The sum of squares of x, added in double in an order that the size alone decides.
double square_sum(Cpu, const Tensor& x);
double square_sum(Cuda, const Tensor& x);

/// x *= factor
void scale_all(Cpu, Tensor& x, float factor);
void scale_all(Cuda, Tensor& x, float factor);

}  // namespace hax
