#include "ops/rms_norm/rms_norm.h"

#include "engine/dispatch.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace hax {

Var rms_norm(const Var& x, const Var& weight, double eps) {
  check(x.shape().rank() >= 1 && weight.shape() == Shape{x.size(-1)},
        "rms_norm: x is {} and weight is {}, expected [..., D] and [D]", x.shape(), weight.shape());
  check(x.dtype() == weight.dtype(), "rms_norm: x is {} and weight is {}, expected equal types",
        name_of(x.dtype()), name_of(weight.dtype()));
  check(eps > 0, "rms_norm: eps is {}, expected a positive number", eps);

  const std::int64_t dim = x.size(-1), rows = dim == 0 ? 0 : x.value().numel() / dim;
  const Tensor xt = x.value().reshape({rows, dim}), wt = weight.value();
  Tensor y = Tensor::empty({rows, dim}, x.dtype(), x.device());
  Tensor rstd = Tensor::empty({rows}, sum_type(x.dtype()), x.device());
  on_device(x.device(), [&](auto device) { rms_norm_forward(device, xt, wt, eps, y, rstd); });

  const auto gradient = [xt, wt, rstd, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(xt.shape(), xt.dtype(), xt.device());
    Tensor dweight = Tensor::empty(wt.shape(), wt.dtype(), wt.device());
    on_device(xt.device(), [&](auto device) {
      rms_norm_backward(device, dy.reshape(xt.shape()), xt, wt, rstd, dx, dweight);
    });
    return Grads{dx.reshape(shape), dweight};
  };
  return record("rms_norm", y.reshape(x.shape()), {x, weight}, gradient);
}

}  // namespace hax
