// Rows of a table: token embedding, and any selection of rows. Page: embedding.md
#pragma once

#include "engine/autograd.h"

namespace hax {

/// y_t = table[index_t]. table [R, D], index int32 [T] -> y [T, D]. The gradient adds up rows that
/// were taken more than once, in the order of t. Throws Error naming the first index outside
/// 0..R-1; on CUDA such an index gives a row of NaN.
Var embedding(const Var& table, const Tensor& index);

}  // namespace hax
