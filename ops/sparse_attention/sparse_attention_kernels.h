// Arithmetic of sparse_attention, once for each device.
#pragma once

#include "ops/sparse_attention/sparse_attention.h"

namespace hax {

/// Q [R, N], K [T, N], V [T, E], rows int32 [R] or undefined -> y [R, E], softmax [R, 2]: the
/// largest score of the row and 1 / sum_j exp(score_j - largest); not set for rows without a key.
void sparse_attention_forward(Cpu, const Tensor& Q, const Tensor& K, const Tensor& V,
                              const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& y,
                              Tensor& softmax);
void sparse_attention_forward(Cuda, const Tensor& Q, const Tensor& K, const Tensor& V,
                              const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& y,
                              Tensor& softmax);

/// dy [R, E], what the forward took, and its softmax -> dQ [R, N], dK [T, N], dV [T, E].
void sparse_attention_backward(Cpu, const Tensor& dy, const Tensor& Q, const Tensor& K,
                               const Tensor& V, const Tensor& softmax, const KeySet& keys,
                               const Tensor& rows, EmptyRows empty, Tensor& dQ, Tensor& dK,
                               Tensor& dV);
void sparse_attention_backward(Cuda, const Tensor& dy, const Tensor& Q, const Tensor& K,
                               const Tensor& V, const Tensor& softmax, const KeySet& keys,
                               const Tensor& rows, EmptyRows empty, Tensor& dQ, Tensor& dK,
                               Tensor& dV);

}  // namespace hax
