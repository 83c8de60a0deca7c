// Matrix product and the linear layer. Page: matmul.md
#pragma once

#include "engine/autograd.h"

namespace hax {

/// C = op(A) op(B), op transposing when its flag is set. A [M, K] (or [K, M]), B [K, N] (or [N, K])
/// -> C [M, N]. Throws Error when shapes or types do not fit.
Var matmul(const Var& a, const Var& b, bool transpose_a = false, bool transpose_b = false);

/// y = x W^T + bias. x [R, I], weight [O, I], bias [O] or undefined -> y [R, O].
/// Throws Error when shapes or types do not fit.
Var linear(const Var& x, const Var& weight, const Var& bias = {});

}  // namespace hax
