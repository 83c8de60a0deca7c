// Arithmetic of key sets, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// death_j = max(a_j, b_j). All int32 [T].
void unite_deaths(Cpu, const Tensor& a, const Tensor& b, Tensor& death);
void unite_deaths(Cuda, const Tensor& a, const Tensor& b, Tensor& death);

}  // namespace hax
