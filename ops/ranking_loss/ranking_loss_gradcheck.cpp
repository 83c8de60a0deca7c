#include "ops/gradcheck.h"
#include "ops/ranking_loss/ranking_loss.h"

namespace hax {

std::vector<GradCase> ranking_loss_gradchecks() {
  const auto loss = [](const char* what, std::vector<double> target,
                       std::vector<std::int64_t> groups, double deviation = 1.0) {
    const auto count = static_cast<std::int64_t>(target.size());
    return GradCase{
        "ranking_loss",
        what,
        {gradcheck_tensor({count}, 1, deviation)},
        [target = Tensor::from(target), groups = Sequences(groups)](std::span<const Var> in) {
          return ranking_loss(in[0], target.to(in[0].dtype()).to(in[0].device()), groups, 3);
        }};
  };
  // ranking_target returns a Tensor: it has no gradient.
  return {
      loss("groups of 4, 0, 1 and 3 with ties", {2, 5, 2, 1, 7, 3, 3, 3}, {0, 4, 4, 5, 8}),
      loss("one pair", {1, 2}, {0, 2}),
      loss("scores far apart", {4, 1, 3, 2, 5}, {0, 5}, 20.0),
  };
}

}  // namespace hax
