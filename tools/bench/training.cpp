#include "tools/bench/training.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace hax::bench {

ModelConfig resolved_arch(const std::string& arch) {
  const std::size_t plus = arch.find('+');
  ModelConfig config = named_config(arch.substr(0, plus),
                                    plus == std::string::npos ? "none" : arch.substr(plus + 1));
  config.resolve();
  return config;
}

std::vector<std::string> paper_archs() {
  std::vector<std::string> archs;
  for (const std::string base : {"mamba", "mamba2"}) {
    archs.push_back(base);
    for (const char* sparse :
         {"dilated", "sliding_window", "sliding_window+dilated", "sliding_window+sink",
          "sign_bin_lsh", "key_selection", "sign_bin_lsh+key_selection"}) {
      archs.push_back(base + "+" + sparse);
    }
    archs.push_back(base + "_2x");
  }
  archs.emplace_back("samba");
  return archs;
}

std::vector<std::string> main_archs() {
  return {"mamba+sign_bin_lsh+key_selection",
          "mamba2+sign_bin_lsh+key_selection",
          "mamba_2x",
          "mamba2_2x",
          "samba",
          "transformer"};
}

namespace {

// No warm-up from a rate of zero, and slow enough that the model stays as fresh as it started.
constexpr double kRate = 1e-6;
constexpr const char* kSmallTables = "2:3";

TrainOptions options_of(const TrainingSetting& setting) {
  TrainOptions options;
  options.bsz = setting.batch_size;
  if (setting.small) options.contexts = options.keys = kSmallTables;
  return options;
}

}  // namespace

Training::Training(const ModelConfig& config, const TrainingSetting& setting)
    : options_(options_of(setting)),
      graphs_(setting.graphs),
      task_(open_task(options_)),
      model_(std::make_unique<Model>(config)),
      parameters_(
          std::make_unique<Parameters>(model_->parameters(), DType::float32, setting.device)),
      gradients_(
          std::make_unique<Parameters>(model_->parameters(), DType::float32, setting.device)),
      optimizer_(std::make_unique<AdamW>(model_->parameters(), AdamWOptions{}, setting.device)) {
  JointRecallTask recall;
  if (setting.small) recall.contexts = recall.keys = parse_range(kSmallTables, "tables");
  sizes_ = recall.size_count();
  parameters_->initialize(0);
}

std::int64_t Training::cycle() const { return sizes_ / std::gcd(sizes_, options_.bsz); }

void Training::check_finite(double loss, double norm, bool good_update) const {
  check(std::isfinite(loss) && std::isfinite(norm) && good_update,
        "the benchmark's step {} diverged", number_);
}

void Training::step(const Batch& batch) {
  const DrawnInputs random(0, static_cast<std::uint32_t>(++number_));
  const StepResult result =
      step_gradients(*model_, *parameters_, batch, random,
                     {options_.gate_loss_weight, options_.shards}, *gradients_);
  const double norm = global_norm(*gradients_);
  check_finite(result.loss, norm, true);
  optimizer_->update(number_, kRate, *gradients_, *parameters_);
  check_finite(result.loss, norm, first_nonfinite_parameter(*parameters_).empty());
}

void Training::next_step() {
  if (!device_steps_) {
    device_steps_ = std::make_unique<DeviceSteps>(
        *model_, *task_, PrefetchOptions{.bsz = options_.bsz, .packs = 1, .first = number_},
        graphs_, *optimizer_, *gradients_, *parameters_);
  }
  const UpdateOptions update{
      .step = ++number_, .lr = kRate, .gate_loss_weight = options_.gate_loss_weight};
  const StepOutcome outcome = device_steps_->next(update);
  check_finite(outcome.result.loss, outcome.norm, !outcome.bad_update);
}

void Training::run_sequence() const {
  Parameters gradients(model_->parameters());
  step_gradients(*model_, *parameters_, batch(0).slice(0, 1), DrawnInputs(0, 0),
                 {options_.gate_loss_weight, 1}, gradients);
}

std::optional<double> Training::predicted_bytes(const Batch& batch, int threads) const {
  StepSizes sizes{.batch = batch.count(), .shards = options_.shards, .threads = threads};
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    sizes.most.tokens = std::max(sizes.most.tokens, batch.sequences.length(s));
    sizes.most.targets = std::max(sizes.most.targets, batch.target_samples.length(s));
  }
  std::vector<bool> seen(static_cast<std::size_t>(model_->config().vocab_size));
  for (const std::int32_t token : batch.tokens.values<std::int32_t>()) {
    seen[static_cast<std::size_t>(token)] = true;
  }
  sizes.most.distinct = std::ranges::count(seen, true);
  const StepMemoryModel memory(*model_);
  if (!memory.predicts()) return std::nullopt;
  return static_cast<double>(memory.predict(sizes).peak());
}

double Training::validation_seconds(std::int64_t samples, const Effort& effort) const {
  const Batch batch = task_->batch(Split::valid, 0, options_.bsz);
  const DrawnInputs random(0, 0);
  const Timing timing = measure(
      effort, [&] { evaluate_batch(*model_, *parameters_, batch, random, options_.shards); });
  return timing.median * static_cast<double>(samples) / static_cast<double>(options_.bsz);
}

Batch filled_up(const Batch& batch) {
  const std::int64_t count = batch.count(), length = batch.sequences.padded(0);
  const Shape shape{count, length};
  Tensor tokens = Tensor::full(shape, kPadToken, DType::int32);
  Tensor labels = Tensor::full(shape, kPadToken, DType::int32);
  Tensor targets = Tensor::zeros(shape, DType::int32);
  const Tensor real = Tensor::full(shape, 1, DType::int32);
  for (std::int64_t s = 0; s < count; ++s) {
    const std::int64_t begin = batch.sequences.begin(s), end = batch.sequences.end(s);
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t at = s * length + t - begin;
      tokens.data<std::int32_t>()[at] = batch.tokens.data<std::int32_t>()[t];
      labels.data<std::int32_t>()[at] = batch.labels.data<std::int32_t>()[t];
    }
    for (std::int64_t r = batch.target_samples.begin(s); r < batch.target_samples.end(s); ++r) {
      const std::int64_t row = batch.target_rows.data<std::int32_t>()[r];
      targets.data<std::int32_t>()[s * length + row - begin] = 1;
    }
  }
  return pack_padded(tokens, labels, targets, real);
}

}  // namespace hax::bench
