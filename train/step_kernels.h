// Arithmetic of step_sums.h, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// As StepSums::add says.
void add_step_sums(Cpu, const Tensor& lm_loss, const Tensor& gate_loss, const Tensor& accuracy,
                   Tensor& sums);
void add_step_sums(Cuda, const Tensor& lm_loss, const Tensor& gate_loss, const Tensor& accuracy,
                   Tensor& sums);

}  // namespace hax
