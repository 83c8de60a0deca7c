// Small differentiable ops in float64, for the tests of the graph.
#pragma once

#include "engine/autograd.h"

namespace hax::test::graph {

inline Tensor scalar(double value) { return Tensor::full({}, value, DType::float64); }

inline Tensor elementwise(const Tensor& a, const Tensor& b, double (*f)(double, double)) {
  Tensor y = Tensor::empty(a.shape(), DType::float64);
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    y.data<double>()[i] = f(a.data<double>()[i], b.data<double>()[i]);
  }
  return y;
}

inline Tensor product(const Tensor& a, const Tensor& b) {
  return elementwise(a, b, [](double x, double y) { return x * y; });
}

// Passes its dy on as it is, twice: gradients that share storage.
inline Var add(const Var& a, const Var& b) {
  const Tensor y = elementwise(a.value(), b.value(), [](double p, double q) { return p + q; });
  return record("add", y, {a, b}, [](const Tensor& dy) { return Grads{dy, dy}; });
}

inline Var mul(const Var& a, const Var& b) {
  const Tensor at = a.value(), bt = b.value();
  return record("mul", product(at, bt), {a, b}, [at, bt](const Tensor& dy) {
    return Grads{product(dy, bt), product(dy, at)};
  });
}

inline Var identity(const Var& x, const char* op = "identity") {
  return record(op, x.value(), {x}, [](const Tensor& dy) { return Grads{dy}; });
}

}  // namespace hax::test::graph
