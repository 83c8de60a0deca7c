#include "ops/running_sum/running_sum.h"

#include "engine/dispatch.h"
#include "ops/running_sum/running_sum_kernels.h"

namespace hax {

Var normalized_running_sum(const Var& x, const Sequences& sequences, NormMode mode) {
  check(x.shape().rank() == 2 && is_floating(x.dtype()),
        "normalized_running_sum: x is {} {}, expected float32 or float64 [T, N]",
        name_of(x.dtype()), x.shape());
  sequences.require_tokens("normalized_running_sum", x.size(0));

  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const Shape norm_shape =
      mode == NormMode::causal ? Shape{x.size(0)} : Shape{sequences.count(), x.size(1)};
  Tensor norms = Tensor::empty(norm_shape, DType::float64, x.device());
  on_device(x.device(), [&](auto device) {
    running_sum_forward(device, x.value(), sequences, mode, y, norms);
  });

  return record("normalized_running_sum", y, {x}, [y, norms, sequences, mode](const Tensor& dy) {
    Tensor dx = Tensor::empty(y.shape(), y.dtype(), y.device());
    on_device(y.device(), [&](auto device) {
      running_sum_backward(device, dy, y, norms, sequences, mode, dx);
    });
    return Grads{dx};
  });
}

}  // namespace hax
