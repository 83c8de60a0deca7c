// EmptyRows::uniform on CUDA, after the kernels that left the rows without a key at zero.
#pragma once

#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Rows of y [R, E] whose softmax [R, 2] says that they have no key: the mean of V over the padded
/// sequence. `rows` as for sparse_attention.
void uniform_rows_forward(const Tensor& V, const Sequences& sequences, const Tensor& rows,
                          const Tensor& softmax, Tensor& y);
/// Sets these rows of dQ and adds what they send to dK and dV.
void uniform_rows_backward(const Tensor& dy, const Tensor& Q, const Tensor& K, const Tensor& V,
                           const Sequences& sequences, const Tensor& rows, const Tensor& softmax,
                           Tensor& dQ, Tensor& dK, Tensor& dV);

}  // namespace hax
