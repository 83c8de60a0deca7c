// Arithmetic of select_rows, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// y [R, ...] = rows of x [M, ...]; any type.
void select_rows(Cpu, const Tensor& x, const Tensor& rows, Tensor& y);
void select_rows(Cuda, const Tensor& x, const Tensor& rows, Tensor& y);

/// y [C, W] = the features [T, W] at positions [C], as select_rows.h says.
void candidate_features(Cpu, const Tensor& features, const Tensor& positions,
                        const Sequences& groups, const Sequences& sequences, Tensor& y);
void candidate_features(Cuda, const Tensor& features, const Tensor& positions,
                        const Sequences& groups, const Sequences& sequences, Tensor& y);

}  // namespace hax
