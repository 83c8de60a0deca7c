#include "ops/elementwise/elementwise.h"

#include "engine/dispatch.h"
#include "ops/elementwise/elementwise_kernels.h"

namespace hax {

using functor::BinaryFunction;
using functor::UnaryFunction;

namespace {

template <class Function>
const char* name_of_function(const Function& f) {
  return std::visit([]<class F>(const F&) { return F::name; }, f);
}

// Both derivatives of a sum are one: dy is passed on, shared and not copied. b [D].
Grads add_backward(const Tensor& dy, const Shape& table, const Tensor& b, const Shape& shape_b) {
  if (shape_b == dy.shape()) return {dy, dy};
  const Tensor rows = dy.reshape(table);
  Tensor not_wanted, db = Tensor::empty(shape_b, dy.dtype(), dy.device());
  on_device(dy.device(), [&](auto device) {
    binary_backward(device, rows, rows, b, functor::Add{}, not_wanted, db);
  });
  return {dy, db};
}

}  // namespace

Var elementwise(const UnaryFunction& f, const Var& x) {
  const char* name = name_of_function(f);
  check(is_floating(x.dtype()), "{}: x is {}, expected float32 or float64", name,
        name_of(x.dtype()));
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  on_device(x.device(), [&](auto device) { unary_forward(device, x.value(), f, y); });

  // The derivative of a scaling does not depend on x, so x need not stay alive for it.
  const Tensor xt = std::holds_alternative<functor::Scale>(f) ? Tensor{} : x.value();
  return record(name, y, {x}, [f, xt](const Tensor& dy) {
    Tensor dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
    on_device(dy.device(),
              [&](auto device) { unary_backward(device, dy, xt.defined() ? xt : dy, f, dx); });
    return Grads{dx};
  });
}

Var elementwise(const BinaryFunction& f, const Var& a, const Var& b) {
  const char* name = name_of_function(f);
  const bool equal = a.shape() == b.shape();
  check(equal || (b.shape().rank() == 1 && a.shape().rank() > 1 && a.size(-1) == b.size(0)),
        "{}: a is {} and b is {}, expected equal shapes, or [..., D] and [D]", name, a.shape(),
        b.shape());
  check(is_floating(a.dtype()) && a.dtype() == b.dtype(),
        "{}: a is {} and b is {}, expected float32 or float64 for both", name, name_of(a.dtype()),
        name_of(b.dtype()));

  const std::int64_t dim = b.value().numel(), count = a.value().numel();
  const Shape table{equal ? 1 : (dim == 0 ? 0 : count / dim), dim};
  const Tensor at = a.value().reshape(table), bt = b.value().reshape({dim});
  Tensor y = Tensor::empty(table, a.dtype(), a.device());
  on_device(a.device(), [&](auto device) { binary_forward(device, at, bt, f, y); });
  y = y.reshape(a.shape());

  if (std::holds_alternative<functor::Add>(f)) {
    return record(name, y, {a, b}, [table, bt, shape_b = b.shape()](const Tensor& dy) {
      return add_backward(dy, table, bt, shape_b);
    });
  }
  const auto gradient = [f, at, bt, shape_a = a.shape(), shape_b = b.shape(),
                         want_a = a.requires_grad(), want_b = b.requires_grad()](const Tensor& dy) {
    Tensor da, db;
    if (want_a) da = Tensor::empty(at.shape(), at.dtype(), at.device());
    if (want_b) db = Tensor::empty(bt.shape(), bt.dtype(), bt.device());
    on_device(at.device(), [&](auto device) {
      binary_backward(device, dy.reshape(at.shape()), at, bt, f, da, db);
    });
    if (want_a) da = da.reshape(shape_a);
    if (want_b) db = db.reshape(shape_b);
    return Grads{da, db};
  };
  return record(name, y, {a, b}, gradient);
}

}  // namespace hax
