#include "ops/cross_entropy/cross_entropy.h"
#include "ops/gradcheck.h"

namespace hax {

std::vector<GradCase> cross_entropy_gradchecks() {
  const auto loss = [](const char* what, Tensor logits, std::vector<std::int32_t> labels,
                       double divisor) {
    return GradCase{"cross_entropy",
                    what,
                    {logits},
                    [labels = Tensor::from(labels), divisor](std::span<const Var> in) {
                      return cross_entropy(in[0], labels, divisor);
                    }};
  };
  // sample_accuracy returns a Tensor: it has no gradient.
  return {
      loss("masked rows among others", gradcheck_tensor({5, 7}, 1), {3, -1, 0, 6, -5}, 3),
      loss("every row masked", gradcheck_tensor({2, 3}, 2), {-1, -1}, 1),
      loss("one class", gradcheck_tensor({2, 1}, 3), {0, 0}, 2),
      loss("large logits", gradcheck_tensor({3, 4}, 4, 30.0), {1, 3, 0}, 0.5),
  };
}

}  // namespace hax
