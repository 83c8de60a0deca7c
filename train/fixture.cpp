#include "train/fixture.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/safetensors.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "train/step.h"

namespace hax {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class Kind { floating, integer, bytes };

// An opened file. Nothing in it is believed: a tensor is handed out only with the type and the
// shape that its reader names.
struct Fixture {
  std::string path;
  SafeTensors file;
  DType dtype = DType::float32;
  Device device = kCpu;
  std::int64_t count = 0, length = 0;  // B and L, at least 1

  bool has(const std::string& name) const { return file.tensors.contains(name); }

  // A tensor of any shape.
  const Tensor& get(const std::string& name, Kind kind) const {
    const auto found = file.tensors.find(name);
    check(found != file.tensors.end(), "{}: tensor '{}' is missing; not a fixture of hax verify?",
          path, name);
    const DType type = found->second.dtype();
    const auto expect = [&](bool right, const char* wanted) {
      check(right, "{}: {} is {} {}, expected {}", path, name, name_of(type), found->second.shape(),
            wanted);
    };
    switch (kind) {
      case Kind::floating:
        expect(is_floating(type), "float32 or float64");
        break;
      case Kind::integer:
        expect(!is_floating(type), "integers");
        break;
      case Kind::bytes:
        expect(type == DType::uint8, "uint8");
        break;
    }
    return found->second;
  }
  const Tensor& get(const std::string& name, Kind kind, const Shape& shape) const {
    const Tensor& tensor = get(name, kind);
    check(tensor.shape() == shape, "{}: {} is {} {}, expected {}", path, name,
          name_of(tensor.dtype()), tensor.shape(), shape);
    return tensor;
  }
  // One number, of shape [1] or [].
  const Tensor& number(const std::string& name) const {
    const Tensor& tensor = get(name, Kind::floating);
    check(tensor.numel() == 1, "{}: {} is {} {}, expected one number", path, name,
          name_of(tensor.dtype()), tensor.shape());
    return tensor;
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
  // Before a model is built that the file cannot hold.
  check(config.num_hidden_layers <= static_cast<std::int64_t>(fixture.file.tensors.size()),
        "{}: metadata config has {} layers, the file {} tensors", fixture.path,
        config.num_hidden_layers, fixture.file.tensors.size());
  return config;
}

double gate_loss_weight_of(const Fixture& fixture) {
  const std::string& text = fixture.meta("gate_loss_weight");
  double weight = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), weight);
  check(error == std::errc{} && end == text.data() + text.size() && std::isfinite(weight),
        "{}: metadata gate_loss_weight '{}' is not a finite number", fixture.path, text);
  return weight;
}

// Hash matrices and candidates as the file gives them; candidates may lie in the padding.
class GivenInputs final : public RandomInputs {
 public:
  explicit GivenInputs(const Fixture& fixture) : fixture_(fixture) {}

  Tensor hash(int layer, std::int64_t state, std::int64_t columns, DType dtype) const override {
    return fixture_.get(fmt::format("hash.{}", layer), Kind::floating, {state, columns}).to(dtype);
  }

  // As many for each sequence as the file has columns: `keys`, or fewer where the writer stored
  // min(keys, L).
  Candidates candidates(int layer, const Sequences& sequences, std::int64_t first_sequence,
                        std::int64_t keys) const override {
    const std::string name = fmt::format("candidates.{}", layer);
    const Tensor& all = fixture_.get(name, Kind::integer);
    check(
        all.rank() == 2 && all.size(0) == fixture_.count && 1 <= all.size(1) && all.size(1) <= keys,
        "{}: {} is {} {}, expected [{}, 1 to {}]", fixture_.path, name, name_of(all.dtype()),
        all.shape(), fixture_.count, keys);
    const Tensor mine = all.rows(first_sequence, first_sequence + sequences.count());
    return {mine.to(DType::int32).reshape({mine.numel()}),
            Sequences::of_lengths(std::vector<std::int64_t>(
                static_cast<std::size_t>(sequences.count()), all.size(1)))};
  }

 private:
  const Fixture& fixture_;
};

Batch batch_of(const Fixture& fixture) {
  const auto padded = [&](const char* name) -> const Tensor& {
    return fixture.get(name, Kind::integer, {fixture.count, fixture.length});
  };
  Batch batch =
      pack_padded(padded("tokens"), padded("labels"), padded("mask"), padded("attention_mask"));
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    check(batch.sequences.length(s) > 0, "{}: attention_mask leaves sequence {} without a token",
          fixture.path, s);
  }
  check(batch.target_rows.numel() > 0, "{}: mask marks no token to predict", fixture.path);
  return batch;
}

// max|a-b| / max(max|b|, floor); infinite where a number is not finite or the counts differ. Small
// scalars are compared absolutely.
double error_between(const Tensor& a, const Tensor& b, double floor = 0) {
  if (a.numel() != b.numel()) return kInfinity;
  const Tensor x = a.to(kCpu).to(DType::float64), y = b.to(DType::float64);
  double worst = 0, scale = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double difference = std::abs(x.data<double>()[i] - y.data<double>()[i]);
    if (!std::isfinite(difference)) return kInfinity;
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
    add("lm_loss", error_between(scalar(lm), fixture_.number("lm_loss")));
    add("gate_loss", error_between(scalar(gate), fixture_.number("gate_loss")));
    add("loss", error_between(scalar(total), fixture_.number("loss")));
    add("accuracy", error_between(scalar(accuracy), fixture_.number("accuracy")));
  }

  // Gradients are measured against their own size, but at least 1e-4 of the largest one of the
  // file: a parameter on which the loss does not depend holds rounding noise.
  void gradients(const Parameters& gradients) {
    double largest = 0;
    for (const ParamSpec& spec : gradients.specs()) {
      const Tensor g = gradient(spec).to(DType::float64);
      for (const double value : g.values<double>()) largest = std::max(largest, std::abs(value));
    }
    for (std::size_t i = 0; i < gradients.specs().size(); ++i) {
      const ParamSpec& spec = gradients.specs()[i];
      add("grad." + spec.name, error_between(gradients.view(i), gradient(spec), 1e-4 * largest));
    }
  }

  // [T, D] (or [T]) rows of the pack beside [B, L, D] (or [B, L]) at the real positions.
  void padded(const std::string& name, const Tensor& packed) {
    add(name, error_between(packed, unpad(name, packed.shape())));
  }

  // The rows of a padded tensor that are tokens, end to end; `packed` is the shape [rows, D] (or
  // [rows]) of what it is compared with.
  Tensor unpad(const std::string& name, const Shape& packed) const {
    const std::int64_t count = fixture_.count, length = fixture_.length;
    const bool vectors = packed.rank() == 2;
    const std::int64_t width = vectors ? packed[1] : 1;
    const Tensor& padded = fixture_.get(
        name, Kind::floating, vectors ? Shape{count, length, width} : Shape{count, length});
    const Tensor rows = padded.to(DType::float64).reshape({count * length, width});
    Tensor result = Tensor::empty({batch_.sequences.tokens(), width}, DType::float64);
    for (std::int64_t s = 0; s < batch_.sequences.count(); ++s) {
      Tensor target = result.rows(batch_.sequences.begin(s), batch_.sequences.end(s));
      copy(target, rows.rows(s * length, s * length + batch_.sequences.length(s)));
    }
    return result;
  }

  // Infinite unless every query admits exactly the fixture's keys.
  void attended(const std::string& name, const KeySet& keys) {
    const std::int64_t length = fixture_.length;
    const Tensor& expected = fixture_.get(name, Kind::bytes, {fixture_.count, length, length});
    const auto lists = to_lists(to_device(keys, kCpu));
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
        const Shape shape{fixture_.count, t.rank_target.numel() / fixture_.count};
        add(name("rank_target"),
            error_between(t.rank_target, fixture_.get(name("rank_target"), Kind::floating, shape)));
      }
    }
  }

 private:
  const Tensor& gradient(const ParamSpec& spec) const {
    return fixture_.get("grad." + spec.name, Kind::floating, spec.shape);
  }

  const Fixture& fixture_;
  const Batch& batch_;
};

Parameters parameters_of(const Fixture& fixture, const Model& model) {
  const auto value_of = [&](const ParamSpec& spec) -> const Tensor& {
    return fixture.get("param." + spec.name, Kind::floating, spec.shape);
  };
  // All of them before memory is requested for any.
  for (const ParamSpec& spec : model.parameters().specs()) value_of(spec);
  Parameters parameters(model.parameters(), fixture.dtype, fixture.device);
  for (std::size_t i = 0; i < parameters.specs().size(); ++i) {
    Tensor target = parameters.view(i);
    copy(target, value_of(parameters.specs()[i]).to(fixture.dtype));
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
  Parameters gradients(model.parameters(), fixture.dtype, fixture.device);
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
      sample_accuracy(target_logits.value(), batch.target_labels, batch.target_samples).to(kCpu);
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
  Parameters gradients(model.parameters(), fixture.dtype, fixture.device);
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
  const Tensor expected = comparison.unpad("logits", logits.shape());
  comparison.add("logits of target rows",
                 error_between(logits, embedding(expected, batch.target_rows).value()));
  return comparison.errors;
}

Fixture open_fixture(const std::string& path, DType dtype, Device device) {
  Fixture fixture{path, read_safetensors(path), dtype, device};
  // Something else in this format is told apart by its first missing piece, the configuration.
  fixture.meta("config");
  const Tensor& tokens = fixture.get("tokens", Kind::integer);
  check(tokens.rank() == 2 && tokens.numel() > 0,
        "{}: tokens is {} {}, expected [B, L] with B and L at least 1", path,
        name_of(tokens.dtype()), tokens.shape());
  fixture.count = tokens.size(0);
  fixture.length = tokens.size(1);
  return fixture;
}

FixtureReport compare(const Fixture& fixture) {
  const double weight = gate_loss_weight_of(fixture);
  const Model model(config_of(fixture));
  const Parameters parameters = parameters_of(fixture, model);
  const Batch batch = batch_of(fixture);
  FixtureReport report;
  report.stored_as_float64 = fixture.get("logits", Kind::floating).dtype() == DType::float64;
  report.all_rows = check_all_rows(fixture, model, parameters, batch, weight);
  report.as_training = check_as_training(fixture, model, parameters, batch, weight);
  return report;
}

}  // namespace

namespace {

// What an op says about a token or a candidate does not know of the file it came from.
template <class F>
auto naming(const std::string& path, F run) {
  try {
    return run();
  } catch (const Error& error) {
    if (std::string_view(error.what()).find(path) != std::string_view::npos) throw;
    throw Error(fmt::format("{}: {}", path, error.what()));
  }
}

}  // namespace

FixtureReport check_fixture(const std::string& path, DType dtype, Device device) {
  return naming(path, [&] { return compare(open_fixture(path, dtype, device)); });
}

void with_fixture(const std::string& path, DType dtype,
                  const std::function<void(const FixtureStep&)>& run) {
  naming(path, [&] {
    const Fixture fixture = open_fixture(path, dtype, kCpu);
    const Model model(config_of(fixture));
    const Parameters parameters = parameters_of(fixture, model);
    const GivenInputs random(fixture);
    const Batch batch = batch_of(fixture);
    run({model, parameters, random, batch, gate_loss_weight_of(fixture)});
  });
}

}  // namespace hax
