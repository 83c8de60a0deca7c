// Moving the rows of join_rows, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Rows of a [Ta, ...] and b [Tb, ...] -> joined [Ta + Tb, ...], of any type, in the order of
/// past.joined(present).
void join_row_tables(Cpu, const Tensor& a, const Sequences& past, const Tensor& b,
                     const Sequences& present, Tensor& joined);
void join_row_tables(Cuda, const Tensor& a, const Sequences& past, const Tensor& b,
                     const Sequences& present, Tensor& joined);

/// The way back.
void split_row_tables(Cpu, const Tensor& joined, const Sequences& past, const Sequences& present,
                      Tensor& a, Tensor& b);
void split_row_tables(Cuda, const Tensor& joined, const Sequences& past, const Sequences& present,
                      Tensor& a, Tensor& b);

}  // namespace hax
