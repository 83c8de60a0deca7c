#include "ops/cross_entropy/cross_entropy.h"

#include "engine/dispatch.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"

namespace hax {
namespace {

void check_inputs(const char* op, const Tensor& logits, const Tensor& labels) {
  check(logits.rank() == 2 && labels.shape() == Shape{logits.size(0)},
        "{}: logits are {} and labels are {}, expected [R, V] and [R]", op, logits.shape(),
        labels.shape());
  check(labels.dtype() == DType::int32, "{}: labels are {}, expected int32", op,
        name_of(labels.dtype()));
}

}  // namespace

Var cross_entropy(const Var& logits, const Tensor& labels_anywhere, double divisor) {
  const Tensor labels = labels_anywhere.to(logits.device());
  check_inputs("cross_entropy", logits.value(), labels);
  check(divisor > 0, "cross_entropy: divisor is {}, expected a positive number", divisor);

  const Tensor x = logits.value();
  const DType sums = sum_type(x.dtype());
  Tensor loss = Tensor::empty({}, sums, x.device());
  Tensor peak = Tensor::empty({x.size(0)}, sums, x.device());
  Tensor rsum = Tensor::empty({x.size(0)}, sums, x.device());
  on_device(x.device(), [&](auto device) {
    cross_entropy_forward(device, x, labels, divisor, loss, peak, rsum);
  });

  const auto gradient = [x, labels, peak, rsum, divisor](const Tensor& dloss) {
    Tensor dlogits = Tensor::empty(x.shape(), x.dtype(), x.device());
    on_device(x.device(), [&](auto device) {
      cross_entropy_backward(device, dloss, x, labels, peak, rsum, divisor, dlogits);
    });
    return Grads{dlogits};
  };
  return record("cross_entropy", loss, {logits}, gradient);
}

Tensor sample_accuracy(const Tensor& logits, const Tensor& labels_anywhere,
                       const Sequences& samples) {
  const Tensor labels = labels_anywhere.to(logits.device());
  check_inputs("sample_accuracy", logits, labels);
  samples.require_tokens("sample_accuracy", logits.size(0));
  Tensor accuracy = Tensor::empty({samples.count()}, DType::float64, logits.device());
  on_device(logits.device(),
            [&](auto device) { sample_accuracy(device, logits, labels, samples, accuracy); });
  return accuracy;
}

}  // namespace hax
