#include "ops/causal_conv1d/causal_conv1d.h"

#include "engine/dispatch.h"
#include "ops/causal_conv1d/causal_conv1d_kernels.h"

namespace hax {

Var causal_conv1d(const Var& x, const Var& weight, const Var& bias, const Sequences& sequences,
                  Activation activation) {
  const Shape& taps = weight.shape();
  check(x.shape().rank() == 2 && taps.rank() == 3 && taps[0] == x.size(1) && taps[1] == 1 &&
            taps[2] >= 1,
        "causal_conv1d: x is {} and weight is {}, expected [T, C] and [C, 1, W] with W >= 1",
        x.shape(), taps);
  check(!bias.defined() || bias.shape() == Shape{x.size(1)},
        "causal_conv1d: bias is {}, expected [{}]", bias.shape(), x.size(1));
  check(is_floating(x.dtype()) && weight.dtype() == x.dtype() &&
            (!bias.defined() || bias.dtype() == x.dtype()),
        "causal_conv1d: x is {}, weight is {} and bias is {}, expected float32 or float64 for all",
        name_of(x.dtype()), name_of(weight.dtype()),
        bias.defined() ? name_of(bias.dtype()) : "absent");
  sequences.require_tokens("causal_conv1d", x.size(0));

  const Tensor xt = x.value(), wt = weight.value(), bt = bias.value();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  on_device(x.device(), [&](auto device) {
    causal_conv1d_forward(device, xt, wt, bt, sequences, activation, y);
  });

  const auto gradient = [xt, wt, bt, sequences, activation](const Tensor& dy) {
    Tensor dx = Tensor::empty(xt.shape(), xt.dtype(), xt.device());
    Tensor dweight = Tensor::empty(wt.shape(), wt.dtype(), wt.device());
    Tensor dbias;
    if (bt.defined()) dbias = Tensor::empty(bt.shape(), bt.dtype(), bt.device());
    on_device(xt.device(), [&](auto device) {
      causal_conv1d_backward(device, dy, xt, wt, bt, sequences, activation, dx, dweight, dbias);
    });
    return Grads{dx, dweight, dbias};
  };
  return record("causal_conv1d", y, {x, weight, bias}, gradient);
}

}  // namespace hax
