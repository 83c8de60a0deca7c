// One step of a run, on the CPU or on CUDA, and what is said when it fails.
#include <cmath>
#include <nlohmann/json.hpp>

#include "train/evaluate.h"
#include "train/fitting.h"
#include "train/trainer_run.h"

namespace hax {

using Json = nlohmann::json;

void Trainer::Run::fail_nonfinite(std::int64_t step, const std::string& what,
                                  const std::string& where) const {
  throw Error(fmt::format(
      "step {}: {} is not finite; the first NaN or Inf comes from {}. Try a smaller --lr, more "
      "--warmup_step or --clip_norm 1; the last good checkpoint is {}",
      step, what, where, saved.step >= 0 ? (folder / "last").string() : "none yet"));
}

// The samples of a step, on the host.
Batch Trainer::Run::batch_of(std::int64_t number) const {
  const std::int64_t batch_size = options.bsz * options.grad_acc;
  return task->train_batch((number - 1) * batch_size, batch_size);
}

StepOutcome Trainer::Run::step_on_cpu(const RandomInputs& random, const UpdateOptions& update) {
  StepOutcome outcome;
  outcome.result = step_gradients(*model, *parameters, batch_of(update.step), random,
                                  {options.gate_loss_weight, options.shards}, *gradients);
  outcome.norm = global_norm(*gradients);
  if (!std::isfinite(outcome.result.loss) || !std::isfinite(outcome.norm)) return outcome;
  if (update.clip_norm > 0) clip(*gradients, outcome.norm, update.clip_norm);
  optimizer->update(update.step, update.lr, *gradients, *parameters);
  outcome.bad_update = !first_nonfinite_parameter(*parameters).empty();
  return outcome;
}

StepOutcome Trainer::Run::step_on_cuda(const RandomInputs& random, const UpdateOptions& update) {
  if (!device_steps) {
    const PrefetchOptions order{.bsz = options.bsz,
                                .packs = options.grad_acc,
                                .first = state.step,
                                .seed = static_cast<std::uint64_t>(options.seed)};
    device_steps = std::make_unique<DeviceSteps>(*model, *task, order, options.graph == "on",
                                                 *optimizer, *gradients, *parameters);
  }
  try {
    return device_steps->next(update);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(
        fmt::format("step {}: {}; {}", update.step, error.what(),
                    advice_on_batch(*model, *parameters, batch_of(update.step), random,
                                    {options.gate_loss_weight, options.shards}, options.bsz,
                                    options.grad_acc, *gradients)));
  }
}

// Nothing that is not finite gets into the parameters, so none of it reaches a checkpoint.
StepResult Trainer::Run::train_step(MetricsFile& metrics) {
  const std::int64_t number = state.step + 1;
  const DrawnInputs random(static_cast<std::uint64_t>(options.seed),
                           static_cast<std::uint32_t>(number));
  const UpdateOptions update{.step = number,
                             .lr = warmup_rate(options.lr, number, options.warmup_step),
                             .clip_norm = options.clip_norm,
                             .gate_loss_weight = options.gate_loss_weight};
  const auto find = [&] {
    return find_first_nonfinite(*model, *parameters, batch_of(number), random,
                                {options.gate_loss_weight, options.shards});
  };
  const auto where = [&] {
    const std::string found = find();
    return found.empty() ? std::string("the sum over sequences") : found;
  };
  StepOutcome outcome;
  try {
    outcome = device.is_cpu() ? step_on_cpu(random, update) : step_on_cuda(random, update);
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
    // An op that refuses NaN (key selection cannot rank it) must not hide where the NaN comes from.
    const std::string found = find();
    if (found.empty()) throw;
    fail_nonfinite(number, "a value", found);
  }
  const StepResult& result = outcome.result;
  if (!std::isfinite(result.loss)) fail_nonfinite(number, "the loss", where());
  if (!std::isfinite(outcome.norm)) fail_nonfinite(number, "the gradient", where());
  if (outcome.bad_update) {
    fail_nonfinite(number, "an updated parameter",
                   "the update of " + first_nonfinite_parameter(*parameters));
  }
  state.step = number;
  if (number % options.log_step == 0 || number == options.step) {
    metrics.append(Json{
        {"step", number},
        {"loss", result.lm_loss},
        {"gate_loss", result.gate_loss},
        {"accuracy", result.accuracy},
        {"grad_norm", outcome.norm},
        {"lr",
         update.lr}}.dump());
  }
  return result;
}

// Finite parameters may still overflow on samples that no step has seen.
StepResult Trainer::Run::evaluate_finite(Split split, const std::function<bool()>& stop) const {
  const auto seed = static_cast<std::uint64_t>(options.seed);
  const auto where = [&] {
    return find_nonfinite_evaluation(*model, *parameters, *task, split, seed);
  };
  StepResult result;
  try {
    result = evaluate(*model, *parameters, *task, split, seed, stop);
  } catch (const Error&) {
    const std::string found = where();
    if (found.empty()) throw;
    fail_nonfinite(state.step, "a value in validation", found);
  }
  if (!std::isfinite(result.lm_loss)) fail_nonfinite(state.step, "the validation loss", where());
  return result;
}

}  // namespace hax
