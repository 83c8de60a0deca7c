// Arithmetic of matmul and linear, once for each device.
#pragma once

#include <span>
#include <vector>

#include "engine/device.h"
#include "engine/tensor.h"

namespace hax {

/// c = op(a) op(b), or c += with `add`. op(a) [M, K], op(b) [K, N] -> c [M, N]; op transposes when
/// its flag is set. Any size may be 0; a product over K = 0 is zero.
void gemm(Cpu, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool add,
          Tensor& c);
void gemm(Cuda, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool add,
          Tensor& c);

/// x [R, sum of O_i] -> parts [R, O_i], its columns from left to right.
void split_columns(Cpu, const Tensor& x, std::vector<Tensor>& parts);
void split_columns(Cuda, const Tensor& x, std::vector<Tensor>& parts);
/// The reverse; an undefined part stands for zeros, widths[i] = O_i columns of them.
void join_columns(Cpu, std::span<const Tensor> parts, const std::vector<std::int64_t>& widths,
                  Tensor& x);
void join_columns(Cuda, std::span<const Tensor> parts, const std::vector<std::int64_t>& widths,
                  Tensor& x);

/// row [D] -> y [R, D], every row equal to `row`.
void broadcast_rows(Cpu, const Tensor& row, Tensor& y);
void broadcast_rows(Cuda, const Tensor& row, Tensor& y);

/// x [R, D] -> sum [D] over the rows, added in their order.
void sum_rows(Cpu, const Tensor& x, Tensor& sum);
void sum_rows(Cuda, const Tensor& x, Tensor& sum);

}  // namespace hax
