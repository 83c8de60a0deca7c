// Arithmetic of embedding, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// table [R, D], index int32 [T] -> y [T, D], y_t = table[index_t]. Throws Error naming the first
/// index outside 0..R-1 (CUDA: the row is NaN, and no gradient comes from it).
void embedding_forward(Cpu, const Tensor& table, const Tensor& index, Tensor& y);
void embedding_forward(Cuda, const Tensor& table, const Tensor& index, Tensor& y);

/// dy [T, D], index int32 [T], checked by the forward -> dtable [R, D], rows added in the order
/// of t (CUDA: in parts, each in the order of t).
void embedding_backward(Cpu, const Tensor& dy, const Tensor& index, Tensor& dtable);
void embedding_backward(Cuda, const Tensor& dy, const Tensor& index, Tensor& dtable);

}  // namespace hax
