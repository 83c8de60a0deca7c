#include "ops/running_sum/running_sum.h"

#include "engine/dispatch.h"
#include "ops/running_sum/running_sum_kernels.h"

namespace hax {

RunningSumResult normalized_running_sum(const Var& x, const Sequences& sequences, NormMode mode,
                                        const Var& initial_sum) {
  check(x.shape().rank() == 2 && is_floating(x.dtype()),
        "normalized_running_sum: x is {} {}, expected float32 or float64 [T, N]",
        name_of(x.dtype()), x.shape());
  sequences.require_tokens("normalized_running_sum", x.size(0));
  const Shape sums{sequences.count(), x.size(1)};
  if (initial_sum.defined()) {
    check(mode == NormMode::causal,
          "normalized_running_sum: initial_sum is given, but the released norms need the whole "
          "sequence, expected mode causal");
    check(initial_sum.shape() == sums && initial_sum.dtype() == DType::float64,
          "normalized_running_sum: initial_sum is {} {}, expected float64 [S, N] = {}",
          name_of(initial_sum.dtype()), initial_sum.shape(), sums);
  }

  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  const Shape norm_shape = mode == NormMode::causal ? Shape{x.size(0)} : sums;
  Tensor norms = Tensor::empty(norm_shape, DType::float64, x.device());
  Tensor final_sum = Tensor::empty(sums, DType::float64, x.device());
  on_device(x.device(), [&](auto device) {
    running_sum_forward(device, x.value(), initial_sum.value(), sequences, mode, y, norms,
                        final_sum);
  });

  const auto gradient = [y, norms, sequences, mode, sums,
                         from_sum = initial_sum.requires_grad()](std::span<const Tensor> dy) {
    Tensor dx = Tensor::empty(y.shape(), y.dtype(), y.device()), dinitial;
    if (from_sum) dinitial = Tensor::empty(sums, DType::float64, y.device());
    on_device(y.device(), [&](auto device) {
      running_sum_backward(device, dy[0], dy[1], y, norms, sequences, mode, dx, dinitial);
    });
    return Grads{dx, dinitial};
  };
  const std::vector<Var> results =
      record_many("normalized_running_sum", {y, final_sum}, {x, initial_sum}, gradient);
  return {results[0], results[1]};
}

}  // namespace hax
