// Arithmetic of matmul and linear, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// c = op(a) op(b), or c += with `add`. op(a) [M, K], op(b) [K, N] -> c [M, N]; op transposes when
/// its flag is set. Any size may be 0; a product over K = 0 is zero.
void gemm(Cpu, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool add,
          Tensor& c);
void gemm(Cuda, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool add,
          Tensor& c);

/// row [D] -> y [R, D], every row equal to `row`.
void broadcast_rows(Cpu, const Tensor& row, Tensor& y);
void broadcast_rows(Cuda, const Tensor& row, Tensor& y);

/// x [R, D] -> sum [D] over the rows, added in their order.
void sum_rows(Cpu, const Tensor& x, Tensor& sum);
void sum_rows(Cuda, const Tensor& x, Tensor& sum);

}  // namespace hax
