#include "train/fixture.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/safetensors.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "train/step.h"

namespace hax {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Fixture {
  std::string path;
  SafeTensors file;
  DType dtype = DType::float32;

  bool has(const std::string& name) const { return file.tensors.contains(name); }
  const Tensor& get(const std::string& name) const {
    const auto found = file.tensors.find(name);
    check(found != file.tensors.end(), "{}: tensor '{}' is missing; not a fixture of hax verify?",
          path, name);
    return found->second;
  }
  const std::string& meta(const std::string& key) const {
    const auto found = file.metadata.find(key);
    check(found != file.metadata.end(),
          "{}: metadata '{}' is missing; not a fixture of hax verify?", path, key);
    return found->second;
  }
};

ModelConfig config_of(const Fixture& fixture) {
  ModelConfig config =
      parse_config(fixture.meta("config"), fmt::format("{}: metadata config", fixture.path));
  config.norm_mode = parse_norm_mode(fixture.meta("norm_mode"));
  config.sparse_arch = fixture.meta("sparse_arch");
  const bool uniform = fixture.meta("empty_rows") == "uniform_all";
  check(uniform == (config.norm_mode == NormMode::released),
        "{}: empty_rows '{}' does not go with norm_mode '{}'", fixture.path,
        fixture.meta("empty_rows"), fixture.meta("norm_mode"));
  config.resolve();
  return config;
}

// Hash matrices and candidates as the file gives them; candidates may lie in the padding.
class GivenInputs final : public RandomInputs {
 public:
  explicit GivenInputs(const Fixture& fixture) : fixture_(fixture) {}

  Tensor hash(int layer, std::int64_t state, std::int64_t columns, DType dtype) const override {
    const Tensor& matrix = fixture_.get(fmt::format("hash.{}", layer));
    check(matrix.shape() == Shape{state, columns}, "{}: hash.{} is {}, expected [{}, {}]",
          fixture_.path, layer, matrix.shape(), state, columns);
    return matrix.to(dtype);
  }

  Candidates candidates(int layer, const Sequences& sequences, std::int64_t first_sequence,
                        std::int64_t keys) const override {
    const Tensor& all = fixture_.get(fmt::format("candidates.{}", layer));
    check(
        all.rank() == 2 && all.size(1) == keys && first_sequence + sequences.count() <= all.size(0),
        "{}: candidates.{} is {}, expected {} for each sequence", fixture_.path, layer, all.shape(),
        keys);
    const Tensor mine = all.rows(first_sequence, first_sequence + sequences.count());
    return {mine.to(DType::int32).reshape({mine.numel()}),
            Sequences::of_lengths(
                std::vector<std::int64_t>(static_cast<std::size_t>(sequences.count()), keys))};
  }

 private:
  const Fixture& fixture_;
};

Batch batch_of(const Fixture& fixture) {
  return pack_padded(fixture.get("tokens"), fixture.get("labels"), fixture.get("mask"),
                     fixture.get("attention_mask"));
}

// max|a-b| / max(max|b|, floor); a NaN or another shape is infinite. Small scalars are compared
// absolutely.
double error_between(const Tensor& a, const Tensor& b, double floor = 0) {
  if (a.numel() != b.numel()) return kInfinity;
  const Tensor x = a.to(DType::float64), y = b.to(DType::float64);
  double worst = 0, scale = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double difference = std::abs(x.data<double>()[i] - y.data<double>()[i]);
    if (std::isnan(difference)) return kInfinity;
    worst = std::max(worst, difference);
    scale = std::max(scale, std::abs(y.data<double>()[i]));
  }
  if (b.numel() == 1 && scale < 1e-3 && floor == 0) return worst;
  scale = std::max(scale, floor);
  return worst == 0 ? 0 : worst / scale;
}

Tensor scalar(double value) { return Tensor::full({1}, value, DType::float64); }

// Compares what one way of running the model gave.
class Comparison {
 public:
  Comparison(const Fixture& fixture, const Batch& batch) : fixture_(fixture), batch_(batch) {}

  std::vector<FixtureError> errors;

  void add(const std::string& what, double error) { errors.push_back({what, error}); }

  void losses(double lm, double gate, double total, double accuracy) {
    add("lm_loss", error_between(scalar(lm), fixture_.get("lm_loss")));
    add("gate_loss", error_between(scalar(gate), fixture_.get("gate_loss")));
    add("loss", error_between(scalar(total), fixture_.get("loss")));
    add("accuracy", error_between(scalar(accuracy), fixture_.get("accuracy")));
  }

  // Gradients are measured against their own size, but at least 1e-4 of the largest one of the
  // file: a parameter on which the loss does not depend holds rounding noise.
  void gradients(const Parameters& gradients) {
    double largest = 0;
    for (const ParamSpec& spec : gradients.specs()) {
      const Tensor g = fixture_.get("grad." + spec.name).to(DType::float64);
      for (const double value : g.values<double>()) largest = std::max(largest, std::abs(value));
    }
    for (std::size_t i = 0; i < gradients.specs().size(); ++i) {
      const std::string name = "grad." + gradients.specs()[i].name;
      add(name, error_between(gradients.view(i), fixture_.get(name), 1e-4 * largest));
    }
  }

  // [T, ...] rows of the pack beside [B, L, ...] at the real positions.
  void padded(const std::string& name, const Tensor& packed) {
    add(name, error_between(packed, unpad(fixture_.get(name))));
  }

  // The rows of a padded tensor [B, L, ...] that are tokens, end to end.
  Tensor unpad(const Tensor& padded) const {
    const std::int64_t length = padded.size(1), width = padded.numel() / (padded.size(0) * length);
    const Tensor rows = padded.to(DType::float64).reshape({padded.size(0) * length, width});
    Tensor result = Tensor::empty({batch_.sequences.tokens(), width}, DType::float64);
    for (std::int64_t s = 0; s < batch_.sequences.count(); ++s) {
      Tensor target = result.rows(batch_.sequences.begin(s), batch_.sequences.end(s));
      copy(target, rows.rows(s * length, s * length + batch_.sequences.length(s)));
    }
    return result;
  }

  // Infinite unless every query admits exactly the fixture's keys.
  void attended(const std::string& name, const KeySet& keys) {
    const Tensor& expected = fixture_.get(name);  // uint8 [B, L, L]
    const std::int64_t length = expected.size(1);
    const auto lists = to_lists(keys);
    double wrong = 0;
    for (std::int64_t s = 0; s < batch_.sequences.count(); ++s) {
      for (std::int64_t i = 0; i < batch_.sequences.length(s); ++i) {
        const std::uint8_t* row = expected.data<std::uint8_t>() + (s * length + i) * length;
        std::vector<std::int32_t> wanted;
        for (std::int64_t j = 0; j < length; ++j) {
          if (row[j] != 0) wanted.push_back(static_cast<std::int32_t>(j));
        }
        if (lists[static_cast<std::size_t>(batch_.sequences.begin(s) + i)] != wanted)
          wrong = kInfinity;
      }
    }
    add(name, wrong);
  }

  void traces(const std::vector<LayerTrace>& traces) {
    for (std::size_t i = 0; i < traces.size(); ++i) {
      const LayerTrace& t = traces[i];
      const auto name = [i](const char* what) { return fmt::format("debug.{}.{}", what, i); };
      if (fixture_.has(name("layer_out"))) padded(name("layer_out"), t.output);
      if (t.has_keys && fixture_.has(name("attended"))) attended(name("attended"), t.keys);
      if (t.key_score.defined() && fixture_.has(name("key_score"))) {
        padded(name("key_score"), t.key_score);
      }
      if (t.rank_target.defined() && fixture_.has(name("rank_target"))) {
        add(name("rank_target"), error_between(t.rank_target, fixture_.get(name("rank_target"))));
      }
    }
  }

 private:
  const Fixture& fixture_;
  const Batch& batch_;
};

Parameters parameters_of(const Fixture& fixture, const Model& model) {
  Parameters parameters(model.parameters(), fixture.dtype);
  for (std::size_t i = 0; i < parameters.specs().size(); ++i) {
    const ParamSpec& spec = parameters.specs()[i];
    const Tensor& value = fixture.get("param." + spec.name);
    check(value.shape() == spec.shape, "{}: param.{} is {}, its configuration asks for {}",
          fixture.path, spec.name, value.shape(), spec.shape);
    Tensor target = parameters.view(i);
    copy(target, value.to(fixture.dtype));
  }
  for (const auto& [name, tensor] : fixture.file.tensors) {
    if (!name.starts_with("param.")) continue;
    check(parameters.find(name.substr(6)).defined(), "{}: {} belongs to no parameter of the model",
          fixture.path, name);
  }
  return parameters;
}

// The whole batch as one pack with every row computed.
std::vector<FixtureError> check_all_rows(const Fixture& fixture, const Model& model,
                                         const Parameters& parameters, const Batch& batch,
                                         double weight) {
  Parameters gradients(model.parameters(), fixture.dtype);
  const Leaves leaves(parameters, gradients);
  const GivenInputs random(fixture);
  std::vector<LayerTrace> traces;
  const ForwardContext context{.parameters = leaves,
                               .random = random,
                               .sequences = batch.sequences,
                               .sequences_in_batch = static_cast<double>(batch.sequences.count()),
                               .trace = &traces};
  const ForwardResult out = model.forward(context, batch.tokens);
  const Var target_logits = embedding(out.logits, batch.target_rows);
  const Var lm = cross_entropy(target_logits, batch.target_labels,
                               static_cast<double>(batch.target_rows.numel()));
  const Var loss = out.aux_loss.defined() ? add(lm, scale(out.aux_loss, weight)) : lm;
  const Tensor shares =
      sample_accuracy(target_logits.value(), batch.target_labels, batch.target_samples);
  double accuracy = 0;
  for (const double share : shares.values<double>()) {
    accuracy += share / static_cast<double>(shares.numel());
  }

  Comparison comparison(fixture, batch);
  comparison.padded("logits", out.logits.value());
  comparison.losses(lm.value().item(), out.aux_loss.defined() ? out.aux_loss.value().item() : 0,
                    loss.value().item(), accuracy);
  comparison.traces(traces);
  backward(loss);
  comparison.gradients(gradients);
  return comparison.errors;
}

// Exactly as the trainer runs it, and the logits of the rows wanted.
std::vector<FixtureError> check_as_training(const Fixture& fixture, const Model& model,
                                            const Parameters& parameters, const Batch& batch,
                                            double weight) {
  Parameters gradients(model.parameters(), fixture.dtype);
  const GivenInputs random(fixture);
  const StepResult result =
      step_gradients(model, parameters, batch, random, {.gate_loss_weight = weight}, gradients);

  Comparison comparison(fixture, batch);
  comparison.losses(result.lm_loss, result.gate_loss, result.loss, result.accuracy);
  comparison.gradients(gradients);

  const NoGrad no_grad;
  const Leaves leaves(parameters);
  const ForwardContext context{
      .parameters = leaves, .random = random, .sequences = batch.sequences, .training = false};
  const Tensor logits = model.forward(context, batch.tokens, batch.target_rows).logits.value();
  const Tensor expected = comparison.unpad(fixture.get("logits"));
  comparison.add("logits of target rows",
                 error_between(logits, embedding(expected, batch.target_rows).value()));
  return comparison.errors;
}

}  // namespace

FixtureReport check_fixture(const std::string& path, DType dtype) {
  const Fixture fixture{path, read_safetensors(path), dtype};
  const Model model(config_of(fixture));
  const Parameters parameters = parameters_of(fixture, model);
  const Batch batch = batch_of(fixture);
  double weight = 0;
  try {
    weight = std::stod(fixture.meta("gate_loss_weight"));
  } catch (const std::logic_error&) {
    throw Error(fmt::format("{}: metadata gate_loss_weight '{}' is not a number", path,
                            fixture.meta("gate_loss_weight")));
  }
  FixtureReport report;
  report.stored_as_float64 = fixture.get("logits").dtype() == DType::float64;
  report.all_rows = check_all_rows(fixture, model, parameters, batch, weight);
  report.as_training = check_as_training(fixture, model, parameters, batch, weight);
  return report;
}

FixtureError worst_of(const std::vector<FixtureError>& errors) {
  FixtureError worst{"nothing", 0};
  for (const FixtureError& error : errors) {
    if (!(error.error <= worst.error)) worst = error;
  }
  return worst;
}

}  // namespace hax
