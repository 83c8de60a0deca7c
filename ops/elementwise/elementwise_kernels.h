// Arithmetic of elementwise, once for each device: generic in the function, chosen at run time once
// a call.
#pragma once

#include "engine/device.h"
#include "engine/tensor.h"
#include "ops/elementwise/elementwise_functors.h"

namespace hax {

/// x -> y = f(x), the same shape.
void unary_forward(Cpu, const Tensor& x, const functor::UnaryFunction& f, Tensor& y);
void unary_forward(Cuda, const Tensor& x, const functor::UnaryFunction& f, Tensor& y);

/// dy, x -> dx = dy f'(x), the same shape.
void unary_backward(Cpu, const Tensor& dy, const Tensor& x, const functor::UnaryFunction& f,
                    Tensor& dx);
void unary_backward(Cuda, const Tensor& dy, const Tensor& x, const functor::UnaryFunction& f,
                    Tensor& dx);

/// a [R, D], b [D] -> y [R, D] = f(a, b). Equal shapes are the case of one row.
void binary_forward(Cpu, const Tensor& a, const Tensor& b, const functor::BinaryFunction& f,
                    Tensor& y);
void binary_forward(Cuda, const Tensor& a, const Tensor& b, const functor::BinaryFunction& f,
                    Tensor& y);

/// dy, a [R, D], b [D] -> da [R, D] = dy df/da, db [D] = sum over rows of dy df/db. An undefined da
/// or db is not wanted.
void binary_backward(Cpu, const Tensor& dy, const Tensor& a, const Tensor& b,
                     const functor::BinaryFunction& f, Tensor& da, Tensor& db);
void binary_backward(Cuda, const Tensor& dy, const Tensor& a, const Tensor& b,
                     const functor::BinaryFunction& f, Tensor& da, Tensor& db);

}  // namespace hax
