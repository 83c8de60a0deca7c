// Functions of one or two numbers, applied everywhere. Page: elementwise.md
// Every function here is a functor (value and derivative) in elementwise_functors.h, shared by the
// devices. To add one: the functor there, its name here, its formula in the test.
#pragma once

#include "engine/autograd.h"
#include "ops/elementwise/elementwise_functors.h"

namespace hax {

/// f of every element. x of any shape, float32 or float64 -> the same shape.
Var elementwise(const functor::UnaryFunction& f, const Var& x);
/// f of every pair. Equal shapes, or b is [D] and is used for every row of a [..., D] -> a's shape.
/// Throws Error otherwise, and when the types differ.
Var elementwise(const functor::BinaryFunction& f, const Var& a, const Var& b);

// Unary: x of any shape -> the same shape.
/// x sigma(x)
inline Var silu(const Var& x) { return elementwise(functor::Silu{}, x); }
/// log(1 + e^x), stable for large |x|
inline Var softplus(const Var& x) { return elementwise(functor::Softplus{}, x); }
/// max(x, 0), derivative 0 at 0
inline Var relu(const Var& x) { return elementwise(functor::Relu{}, x); }
/// 1 / (1 + e^-x)
inline Var sigmoid(const Var& x) { return elementwise(functor::Sigmoid{}, x); }
/// -e^x: A = -exp(A_log)
inline Var neg_exp(const Var& x) { return elementwise(functor::NegExp{}, x); }
/// min(max(x, low), high); the derivative is 1 from low to high, both included, and 0 outside
inline Var clamp(const Var& x, double low, double high) {
  return elementwise(functor::Clamp{low, high}, x);
}
inline Var scale(const Var& x, double factor) { return elementwise(functor::Scale{factor}, x); }

// Binary: equal shapes, or b is [D] and is used for every row of a [..., D]. Throws Error
// otherwise.
inline Var add(const Var& a, const Var& b) { return elementwise(functor::Add{}, a, b); }
inline Var mul(const Var& a, const Var& b) { return elementwise(functor::Mul{}, a, b); }
/// a silu(b): the gate of Mamba and SwiGLU
inline Var mul_silu(const Var& a, const Var& b) { return elementwise(functor::MulSilu{}, a, b); }

}  // namespace hax
