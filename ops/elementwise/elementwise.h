// Functions of one or two numbers, applied everywhere. Page: elementwise.md
// Every function here is a functor (value and derivative) in elementwise_functors.h, shared by the
// devices.
#pragma once

#include "engine/autograd.h"

namespace hax {

// Unary: x of any shape -> the same shape.
Var silu(const Var& x);      ///< x sigma(x)
Var softplus(const Var& x);  ///< log(1 + e^x), stable for large |x|
Var relu(const Var& x);      ///< max(x, 0), derivative 0 at 0
Var sigmoid(const Var& x);   ///< 1 / (1 + e^-x)
Var neg_exp(const Var& x);   ///< -e^x: A = -exp(A_log)
Var scale(const Var& x, double factor);

// Binary: equal shapes, or b is [D] and is used for every row of a [..., D]. Throws Error
// otherwise.
Var add(const Var& a, const Var& b);
Var mul(const Var& a, const Var& b);
Var mul_silu(const Var& a, const Var& b);  ///< a silu(b): the gate of Mamba and SwiGLU

}  // namespace hax
