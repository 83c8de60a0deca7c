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
  double limit;                ///< of the gradients' norm; 0: none
};
void adamw_update(Cpu, const AdamWFactors& factors, const Tensor& g, Tensor& p, Tensor& m,
                  Tensor& v);

/// Adds up the squares of g, clips g to the limit and updates, unless a loss or the sum is not
/// finite. `factors` is an AdamWFactors as bytes, uint8, on the device, so that a step's queue is
/// the same for every step. Sets kSquare and kBadUpdate of `sums` (step_sums.h).
void clipped_adamw_update(Cuda, const Tensor& factors, const Tensor& g, Tensor& p, Tensor& m,
                          Tensor& v, Tensor& sums);

/// The sum of squares of x, added in double in an order that the size alone decides.
double square_sum(Cpu, const Tensor& x);
double square_sum(Cuda, const Tensor& x);

}  // namespace hax
