#include "ops/ranking_loss/ranking_loss.h"

#include "engine/dispatch.h"
#include "ops/ranking_loss/ranking_loss_kernels.h"

namespace hax {

Tensor ranking_target(const Tensor& Q, const Tensor& K, const Tensor& candidates_anywhere,
                      const Sequences& groups, const Sequences& sequences) {
  const Tensor candidates = candidates_anywhere.to(Q.device());
  check(Q.rank() == 2 && Q.shape() == K.shape(),
        "ranking_target: Q is {} and K is {}, expected [T, N] twice", Q.shape(), K.shape());
  check(Q.dtype() == K.dtype(), "ranking_target: Q is {} and K is {}, expected equal types",
        name_of(Q.dtype()), name_of(K.dtype()));
  check(candidates.rank() == 1 && candidates.dtype() == DType::int32,
        "ranking_target: candidates are {} {}, expected int32 [C]", name_of(candidates.dtype()),
        candidates.shape());
  sequences.require_tokens("ranking_target", Q.size(0));
  groups.require_tokens("ranking_target: candidates", candidates.size(0));
  check(groups.count() == sequences.count(),
        "ranking_target: {} groups of candidates for {} sequences, expected one each",
        groups.count(), sequences.count());

  Tensor target = Tensor::empty({candidates.size(0)}, Q.dtype(), Q.device());
  on_device(Q.device(), [&](auto device) {
    ranking_target(device, Q, K, candidates, groups, sequences, target);
  });
  return target;
}

Var ranking_loss(const Var& score, const Tensor& target, const Sequences& groups, double divisor) {
  check(score.shape().rank() == 1 && score.shape() == target.shape(),
        "ranking_loss: score is {} and target is {}, expected [C] twice", score.shape(),
        target.shape());
  check(score.dtype() == target.dtype(),
        "ranking_loss: score is {} and target is {}, expected equal types", name_of(score.dtype()),
        name_of(target.dtype()));
  groups.require_tokens("ranking_loss", score.size(0));
  check(divisor > 0, "ranking_loss: divisor is {}, expected a positive number", divisor);

  Tensor loss = Tensor::empty({}, score.dtype(), score.device());
  Tensor slope = Tensor::empty(score.shape(), score.dtype(), score.device());
  on_device(score.device(), [&](auto device) {
    ranking_loss_forward(device, score.value(), target, groups, divisor, loss, slope);
  });

  const auto gradient = [slope](const Tensor& dloss) {
    Tensor dscore = Tensor::empty(slope.shape(), slope.dtype(), slope.device());
    on_device(slope.device(),
              [&](auto device) { ranking_loss_backward(device, dloss, slope, dscore); });
    return Grads{dscore};
  };
  return record("ranking_loss", loss, {score}, gradient);
}

}  // namespace hax
