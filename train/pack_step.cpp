#include "train/pack_step.h"

#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"

namespace hax {

Divisors divisors_of(const Batch& batch) {
  check(batch.target_rows.numel() > 0, "the batch has no token to predict");
  return {static_cast<double>(batch.target_rows.numel()),
          static_cast<double>(batch.sequences.count())};
}

Tensor queue_pack(const PackContext& context, const Batch& pack, std::int64_t first_sequence,
                  StepSums& sums) {
  const ForwardContext forward{.parameters = context.leaves,
                               .random = context.random,
                               .sequences = pack.sequences,
                               .first_sequence = first_sequence,
                               .training = context.training,
                               .sequences_in_batch = context.divisors.sequences};
  const ForwardResult out = context.model.forward(forward, pack.tokens, pack.target_rows);
  const Var lm = cross_entropy(out.logits, pack.target_labels, context.divisors.targets);
  const Tensor accuracy =
      sample_accuracy(out.logits.value(), pack.target_labels, pack.target_samples);
  const Var& gate = out.aux_loss;
  sums.add(lm.value(), gate.defined() ? gate.value() : Tensor{}, accuracy);
  if (context.training) {
    backward(gate.defined() ? add(lm, scale(gate, context.gate_loss_weight)) : lm);
  }
  return out.logits.value();
}

StepResult result_of(const StepSums::Values& sums, const std::vector<Batch>& packs,
                     double gate_loss_weight) {
  StepResult result{.lm_loss = sums.lm_loss,
                    .gate_loss = sums.gate_loss,
                    .loss = sums.lm_loss + gate_loss_weight * sums.gate_loss,
                    .accuracy = sums.accuracy / sums.samples,
                    .samples = static_cast<std::int64_t>(sums.samples)};
  for (const Batch& pack : packs) {
    result.targets += pack.target_rows.numel();
    result.tokens += pack.sequences.tokens();
  }
  return result;
}

std::vector<double> hits_of(const Tensor& logits, const Tensor& labels) {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(labels.numel()), 1);
  const Tensor each = sample_accuracy(logits, labels, Sequences::of_lengths(ones)).to(kCpu);
  return {each.values<double>().begin(), each.values<double>().end()};
}

}  // namespace hax
