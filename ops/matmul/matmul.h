// Matrix product and the linear layer. Page: matmul.md
#pragma once

#include <vector>

#include "engine/autograd.h"

namespace hax {

/// C = op(A) op(B), op transposing when its flag is set. A [M, K] (or [K, M]), B [K, N] (or [N, K])
/// -> C [M, N]. Throws Error when shapes or types do not fit.
Var matmul(const Var& a, const Var& b, bool transpose_a = false, bool transpose_b = false);

/// y = x W^T + bias. x [R, I], weight [O, I], bias [O] or undefined -> y [R, O].
/// Throws Error when shapes or types do not fit.
Var linear(const Var& x, const Var& weight, const Var& bias = {});

/// Several linear layers of one input as one product: y_i = x W_i^T. x [R, I], weights [O_i, I]
/// -> y_i [R, O_i]. Narrow layers cost much less together: x is packed once, its gradient written
/// once. Throws Error when shapes or types do not fit or there is no weight.
std::vector<Var> linears(const Var& x, const std::vector<Var>& weights);

}  // namespace hax
