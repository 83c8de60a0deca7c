#include "train/step.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "engine/denormals.h"
#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "train/optimizer.h"
#include "train/pack_step.h"

namespace hax {
namespace {

// What one sequence contributes, kept apart so that sums can run in the order of the batch.
struct SequenceResult {
  double lm_loss = 0, gate_loss = 0, accuracy = 0;
};

// One sequence, forward and (with gradient leaves) backward, while its activations are in cache.
SequenceResult run_sequence(const Model& model, const Leaves& leaves, const Batch& batch,
                            std::int64_t index, const RandomInputs& random,
                            const Divisors& divisors, double gate_loss_weight, bool training,
                            std::vector<double>* hits = nullptr) {
  const Batch one = batch.slice(index, index + 1);
  const std::int64_t first_target = batch.target_samples.begin(index);
  SequenceResult result;
  const ForwardContext context{.parameters = leaves,
                               .random = random,
                               .sequences = one.sequences,
                               .first_sequence = index,
                               .training = training,
                               .sequences_in_batch = divisors.sequences};
  const ForwardResult out = model.forward(context, one.tokens, one.target_rows);
  const Var lm = cross_entropy(out.logits, one.target_labels, divisors.targets);
  result.lm_loss = lm.value().item();
  if (one.target_rows.numel() > 0) {
    result.accuracy =
        sample_accuracy(out.logits.value(), one.target_labels, one.target_samples).item();
    if (hits != nullptr) {
      std::ranges::copy(hits_of(out.logits.value(), one.target_labels),
                        hits->begin() + first_target);
    }
  }
  Var loss = lm;
  if (out.aux_loss.defined()) {
    result.gate_loss = out.aux_loss.value().item();
    loss = add(lm, scale(out.aux_loss, gate_loss_weight));
  }
  if (training) backward(loss);
  return result;
}

// The whole batch as one pack where the parameters are.
StepResult run_pack(const PackContext& context, const Batch& batch) {
  StepSums sums(context.leaves.device());
  queue_pack(context, batch, 0, sums);
  return result_of(sums.read(), {batch}, context.gate_loss_weight);
}

// In packs of so many tokens that no batch of an evaluation asks for much memory.
StepResult evaluate_packs(const PackContext& context, const Batch& batch,
                          std::vector<double>* hits) {
  constexpr std::int64_t kTokens = 65536;
  StepSums sums(context.leaves.device());
  for (std::int64_t first = 0, last = 0; first < batch.count(); first = last) {
    do {
      ++last;
    } while (last < batch.count() &&
             batch.sequences.end(last) - batch.sequences.begin(first) <= kTokens);
    const Batch pack = batch.slice(first, last);
    const Tensor logits = queue_pack(context, pack, first, sums);
    if (hits != nullptr)
      std::ranges::copy(hits_of(logits, pack.target_labels), std::back_inserter(*hits));
  }
  return result_of(sums.read(), {batch}, 0);
}

// Runs body(g) for every shard that has sequences, on the threads there are. A shard alone runs on
// this thread, so that its ops may take the others.
template <class F>
void for_each_shard(const std::vector<std::int64_t>& cuts, F&& body) {
  std::vector<std::int64_t> shards;
  for (std::size_t g = 0; g + 1 < cuts.size(); ++g) {
    if (cuts[g] < cuts[g + 1]) shards.push_back(static_cast<std::int64_t>(g));
  }
  const FlushDenormals flush;
  parallel_for(static_cast<std::int64_t>(shards.size()),
               [&](std::int64_t i) { body(shards[static_cast<std::size_t>(i)]); });
}

StepResult sum_up(const Batch& batch, const std::vector<SequenceResult>& parts,
                  double gate_loss_weight) {
  StepResult sum;
  std::int64_t scored = 0;
  for (std::size_t s = 0; s < parts.size(); ++s) {
    const auto index = static_cast<std::int64_t>(s);
    sum.lm_loss += parts[s].lm_loss;
    sum.gate_loss += parts[s].gate_loss;
    if (batch.target_samples.length(index) == 0) continue;
    sum.accuracy += parts[s].accuracy;
    ++scored;
  }
  sum.accuracy /= static_cast<double>(scored);
  sum.loss = sum.lm_loss + gate_loss_weight * sum.gate_loss;
  sum.samples = scored;
  sum.targets = batch.target_rows.numel();
  sum.tokens = batch.sequences.tokens();
  return sum;
}

}  // namespace

std::vector<std::int64_t> cut_shards(const Sequences& sequences, std::int64_t shards) {
  const std::int64_t total = std::max<std::int64_t>(1, sequences.tokens());
  std::vector<std::int64_t> boundaries{0};
  for (std::int64_t g = 1; g < shards; ++g) {
    // The first sequence whose middle lies beyond g/shards of all tokens starts shard g.
    std::int64_t s = boundaries.back();
    while (s < sequences.count() &&
           (sequences.begin(s) + sequences.end(s)) * shards < 2 * g * total) {
      ++s;
    }
    boundaries.push_back(s);
  }
  boundaries.push_back(sequences.count());
  return boundaries;
}

StepResult step_gradients(const Model& model, const Parameters& parameters, const Batch& batch,
                          const RandomInputs& random, const StepOptions& options,
                          Parameters& gradients) {
  if (!parameters.device().is_cpu()) {
    fill(gradients.flat(), 0);
    return run_pack({model, Leaves(parameters, gradients), random, divisors_of(batch),
                     options.gate_loss_weight, true},
                    batch);
  }
  const Divisors divisors = divisors_of(batch);
  const std::vector<std::int64_t> cuts = cut_shards(batch.sequences, options.shards);
  std::vector<SequenceResult> parts(static_cast<std::size_t>(batch.sequences.count()));
  std::vector<std::optional<Parameters>> sums(static_cast<std::size_t>(options.shards));
  for_each_shard(cuts, [&](std::int64_t g) {
    const auto shard = static_cast<std::size_t>(g);
    Parameters& sum = sums[shard].emplace(model.parameters(), parameters.flat().dtype());
    const Leaves leaves(parameters, sum);
    for (std::int64_t s = cuts[shard]; s < cuts[shard + 1]; ++s) {
      parts[static_cast<std::size_t>(s)] =
          run_sequence(model, leaves, batch, s, random, divisors, options.gate_loss_weight, true);
    }
  });
  fill(gradients.flat(), 0);
  for (const std::optional<Parameters>& sum : sums) {
    if (sum) accumulate(gradients.flat(), sum->flat());
  }
  return sum_up(batch, parts, options.gate_loss_weight);
}

StepResult evaluate_batch(const Model& model, const Parameters& parameters, const Batch& batch,
                          const RandomInputs& random, std::int64_t shards,
                          std::vector<double>* hits) {
  if (!parameters.device().is_cpu()) {
    const NoGrad no_grad;
    if (hits != nullptr) hits->clear();
    return evaluate_packs({model, Leaves(parameters), random, divisors_of(batch), 0, false}, batch,
                          hits);
  }
  const Divisors divisors = divisors_of(batch);
  if (hits != nullptr) hits->assign(static_cast<std::size_t>(batch.target_rows.numel()), 0);
  const std::vector<std::int64_t> cuts = cut_shards(batch.sequences, shards);
  std::vector<SequenceResult> parts(static_cast<std::size_t>(batch.sequences.count()));
  for_each_shard(cuts, [&](std::int64_t g) {
    const NoGrad no_grad;
    const Leaves leaves(parameters);
    const auto shard = static_cast<std::size_t>(g);
    for (std::int64_t s = cuts[shard]; s < cuts[shard + 1]; ++s) {
      parts[static_cast<std::size_t>(s)] =
          run_sequence(model, leaves, batch, s, random, divisors, 0, false, hits);
    }
  });
  return sum_up(batch, parts, 0);
}

namespace {

bool all_finite(const Tensor& tensor) {
  if (!tensor.defined() || !is_floating(tensor.dtype())) return true;
  bool finite = true;
  visit_float(tensor.dtype(), [&]<class T>() {
    const Tensor here = tensor.to(kCpu);
    finite = std::ranges::all_of(here.values<T>(), [](T x) { return std::isfinite(x); });
  });
  return finite;
}

class NonfiniteFinder final : public Watcher {
 public:
  std::string found;

  void on_forward(const OpEvent& event, std::span<const Var>,
                  std::span<const Tensor> outputs) override {
    if (found.empty() && !std::ranges::all_of(outputs, all_finite)) note(event, "forward");
  }
  void on_backward(const OpEvent& event, std::span<const Tensor>,
                   std::span<const Tensor> dx) override {
    if (found.empty() && !std::ranges::all_of(dx, all_finite)) note(event, "backward");
  }

 private:
  void note(const OpEvent& event, const char* direction) {
    found = fmt::format("{} in {} ({})", event.op, event.scope, direction);
  }
};

}  // namespace

std::string first_nonfinite_parameter(const Parameters& values) {
  // One sum on the device instead of a copy of everything, every step.
  if (!values.device().is_cpu() && std::isfinite(global_norm(values))) return {};
  const Parameters parameters = values.to(kCpu);
  for (std::size_t i = 0; i < parameters.specs().size(); ++i) {
    if (!all_finite(parameters.view(i))) return parameters.specs()[i].name;
  }
  return {};
}

std::string find_first_nonfinite(const Model& model, const Parameters& parameters,
                                 const Batch& batch, const RandomInputs& random,
                                 const StepOptions& options) {
  const std::string parameter = first_nonfinite_parameter(parameters);
  if (!parameter.empty()) return fmt::format("parameter {}, before the step", parameter);
  const Divisors divisors = divisors_of(batch);
  for (std::int64_t s = 0; s < batch.sequences.count(); ++s) {
    const FlushDenormals flush;
    NonfiniteFinder finder;
    const Watch watch(finder);
    Parameters gradients(model.parameters(), parameters.flat().dtype(), parameters.device());
    const Leaves leaves(parameters, gradients);
    try {
      run_sequence(model, leaves, batch, s, random, divisors, options.gate_loss_weight, true);
    } catch (const Error&) {
      if (finder.found.empty()) throw;  // not a matter of numbers
    }
    if (!finder.found.empty()) return fmt::format("{}, sequence {} of the batch", finder.found, s);
  }
  return {};
}

}  // namespace hax
