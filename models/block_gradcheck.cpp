#include "models/block_gradcheck.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "models/architectures.h"
#include "models/model.h"

namespace hax {
namespace {

constexpr std::int64_t kDirections = 32;
// A composition of many ops bends more than one of them, and a short step stays away from edges.
constexpr double kStep = 2e-4;

// With as many tokens as words, all different, the embeddings are what the first block is given.
constexpr const char* kBlockInput = "backbone.embeddings.weight";

// What is constant between two edges: the keys of every layer, and on which side of its kinks every
// op on the path of the gradient is.
struct Choices {
  std::vector<std::vector<std::vector<std::int32_t>>> keys;
  std::vector<bool> sides;
  bool operator==(const Choices&) const = default;
};

// Notes the sides of kinks, and finds the variable that holds the last block's output.
class Notes final : public Watcher {
 public:
  explicit Notes(const std::vector<LayerTrace>& trace) : trace_(trace) {}

  std::vector<bool> sides;
  Var block_output;

  void on_forward(const OpEvent& event, std::span<const Var> inputs,
                  std::span<const Tensor> outputs) override {
    const std::string_view op = event.op;
    if ((op == "relu" || op == "clamp") && grad_enabled()) {
      const auto x = inputs[0].value().values<double>(), y = outputs[0].values<double>();
      for (std::size_t i = 0; i < x.size(); ++i) sides.push_back(x[i] == y[i]);
    }
    if (trace_.empty() || !trace_.back().output.defined() || block_output.defined()) return;
    for (const Var& input : inputs) {
      if (input.defined() && input.value().raw() == trace_.back().output.raw()) {
        block_output = input;
      }
    }
  }

 private:
  const std::vector<LayerTrace>& trace_;
};

enum class Output : std::uint8_t { block, logits, ranking_loss };

// What is computed from the parameters: everything but their values.
struct Setup {
  ModelConfig config;
  Sequences sequences;
  Tensor tokens;
  Tensor rows;  // wanted
  Output output = Output::logits;
};

struct Evaluation {
  Var output;
  Choices choices;
};

Evaluation evaluate(const Setup& setup, const Model& model, std::vector<Var> parameters,
                    std::uint64_t seed) {
  std::vector<LayerTrace> trace;
  Notes notes(trace);
  const Watch watch(notes);
  const DrawnInputs random(seed, 1);
  const Leaves leaves(std::move(parameters));
  const ForwardResult result =
      model.forward({.parameters = leaves,
                     .random = random,
                     .sequences = setup.sequences,
                     .training = setup.output == Output::ranking_loss,
                     .sequences_in_batch = static_cast<double>(setup.sequences.count()),
                     .trace = &trace},
                    setup.tokens, setup.rows);
  Evaluation evaluation;
  for (const LayerTrace& layer : trace) {
    if (layer.has_keys) evaluation.choices.keys.push_back(to_lists(layer.keys));
  }
  evaluation.choices.sides = std::move(notes.sides);
  switch (setup.output) {
    case Output::block:
      check(notes.block_output.defined(), "gradcheck: nothing reads the output of the last block");
      evaluation.output = notes.block_output;
      break;
    case Output::logits:
      evaluation.output = result.logits;
      break;
    case Output::ranking_loss:
      evaluation.output = result.aux_loss;
      break;
  }
  return evaluation;
}

// The parameters' values: their initial ones, none of them left at 0 or 1, which would hide terms.
std::vector<Tensor> draw(const Model& model, std::uint64_t seed) {
  Parameters values(model.parameters(), DType::float64);
  values.initialize(seed);
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < values.specs().size(); ++i) {
    Tensor tensor = values.view(i).clone();
    accumulate(tensor, gradcheck_tensor(tensor.shape(), 1000 * seed + i, 0.3));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

bool has_output(const Setup& setup) {
  const Model model(setup.config);
  const std::vector<Tensor> values = draw(model, 1);
  return evaluate(setup, model, {values.begin(), values.end()}, 1).output.defined();
}

// Whether in every layer some query sees several keys: of one key alone the weight is 1, whatever
// the scores. One token has no choice.
bool weighs_keys(const Setup& setup, const Choices& choices) {
  if (setup.sequences.tokens() == 1) return true;
  for (std::size_t layer = 0; layer < choices.keys.size(); ++layer) {
    const auto several = [&](std::int64_t row) {
      return choices.keys[layer][static_cast<std::size_t>(row)].size() > 1;
    };
    bool found = false;
    if (layer + 1 == choices.keys.size() && setup.rows.defined()) {
      found = std::ranges::any_of(setup.rows.values<std::int32_t>(), several);
    } else {
      for (std::int64_t t = 0; t < setup.sequences.tokens(); ++t) found = found || several(t);
    }
    if (!found) return false;
  }
  return true;
}

// Whether steps of all parameters at once, each about as long as the longest that check_gradient
// takes of one, change no choice.
bool keeps_distance(const Setup& setup, const Model& model, const std::vector<Tensor>& values,
                    const Choices& choices, std::uint64_t seed) {
  for (std::uint64_t step = 0; step < 16; ++step) {
    std::vector<Var> near;
    for (std::size_t i = 0; i < values.size(); ++i) {
      Tensor moved = gradcheck_tensor(values[i].shape(), 100 * step + i, 2 * kStep);
      accumulate(moved, values[i]);
      near.emplace_back(moved);
    }
    if (evaluate(setup, model, near, seed).choices != choices) return false;
  }
  return true;
}

// Which parameters the case differentiates. The ranking loss also depends on Q and K, but is cut
// off from them on purpose: it trains what the logits do not.
std::vector<std::size_t> moved_parameters(Setup setup, const Model& model,
                                          const std::vector<Tensor>& values, std::uint64_t seed) {
  const std::vector<ParamSpec>& specs = model.parameters().specs();
  std::vector<Var> leaves;
  for (const Tensor& value : values) leaves.push_back(Var::leaf(value));
  if (setup.output == Output::ranking_loss) {
    setup.output = Output::logits;
    const Var logits = evaluate(setup, model, leaves, seed).output;
    backward(logits, gradcheck_tensor(logits.shape(), 1));
  }
  std::vector<std::size_t> moved;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const bool around_block =
        !specs[i].name.starts_with("backbone.layers.") && specs[i].name != kBlockInput;
    if (setup.output == Output::block && around_block) continue;
    if (!leaves[i].grad().defined()) moved.push_back(i);
  }
  return moved;
}

GradCase make_case(std::string op, std::string what, const Setup& setup) {
  const std::string title = fmt::format("{}, {}", op, what);
  const auto model = std::make_shared<const Model>(setup.config);
  constexpr std::uint64_t kSeeds = 4000;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::vector<Tensor> values = draw(*model, seed);
    const std::vector<Var> constants(values.begin(), values.end());
    const Choices choices = evaluate(setup, *model, constants, seed).choices;
    if (!weighs_keys(setup, choices) || !keeps_distance(setup, *model, values, choices, seed)) {
      continue;
    }

    GradCase result;
    result.op = std::move(op);
    result.what = std::move(what);
    result.directions = kDirections;
    result.step = kStep;
    const std::vector<std::size_t> moved = moved_parameters(setup, *model, values, seed);
    for (const std::size_t i : moved) {
      result.inputs.push_back(values[i]);
      const std::string& name = model->parameters().specs()[i].name;
      const bool is_input = setup.output == Output::block && name == kBlockInput;
      result.names.push_back(is_input ? "x" : name);
    }
    result.run = [=](std::span<const Var> inputs) {
      std::vector<Var> parameters = constants;
      for (std::size_t k = 0; k < moved.size(); ++k) parameters[moved[k]] = inputs[k];
      const Evaluation evaluation = evaluate(setup, *model, std::move(parameters), seed);
      check(
          evaluation.choices == choices,
          "gradcheck: {}: its draw lies too near an edge: a step changes the selected keys or the "
          "side of a kink, where finite differences mean nothing",
          title);
      return evaluation.output;
    };
    return result;
  }
  throw Error(fmt::format(
      "gradcheck: {}: none of {} draws is far from the edges and has queries with several keys",
      title, kSeeds));
}

// The configuration with sizes that are small, odd where they can be, and different from each
// other; bias terms on.
ModelConfig shrink(ModelConfig config, int layers) {
  config.hidden_size = 6;
  config.intermediate_size = 9;  // Mamba2 takes expand x hidden_size
  config.state_size = 5;
  config.conv_kernel = 3;
  config.time_step_rank = 2;
  config.num_heads = 4;
  config.head_dim = 3;
  config.n_groups = 2;
  config.chunk_size = 3;
  config.use_bias = true;
  // Steps of the size of 1, so that the state's decay has a gradient worth comparing.
  config.time_step_min = 0.3;
  config.time_step_max = 1;
  config.initializer_range = 0.5;
  config.sparse_keys = 4;
  config.num_hash = 2;
  config.data_max_length = 8;
  config.num_hidden_layers = layers;
  if (config.attn) {
    config.attn->num_heads = 3;
    config.attn->num_kv_heads = 1;
    config.attn->qkv_bias = true;
    config.attn->window_size = 3;
  }
  return config;
}

Setup block_setup(ModelConfig config, const std::vector<std::int64_t>& lengths) {
  const Sequences sequences = Sequences::of_lengths(lengths);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(sequences.tokens()));
  std::iota(tokens.begin(), tokens.end(), 0);
  config.vocab_size = sequences.tokens();
  return {std::move(config), sequences, Tensor::from(tokens), {}, Output::block};
}

void add_blocks(std::vector<GradCase>& cases, const std::string& name, const std::string& block,
                const ModelConfig& config) {
  cases.push_back(
      make_case(name, block + ": sequences of 7, 0, 1 and 3", block_setup(config, {7, 0, 1, 3})));
  cases.push_back(make_case(name, block + ": one token", block_setup(config, {1})));
  Setup wanted = block_setup(config, {3, 0, 6});
  wanted.rows = Tensor::from(std::vector<std::int32_t>{1, 4, 8});
  cases.push_back(make_case(name, block + ": rows 1, 4 and 8 of 9", wanted));
}

void add_models(std::vector<GradCase>& cases, const std::string& name, ModelConfig config) {
  config.vocab_size = 5;
  config.time_step_limit_low = 0.4;
  config.time_step_limit_high = 1.5;
  Setup setup{config, Sequences::of_lengths({6, 0, 4}),
              Tensor::from(std::vector<std::int32_t>{0, 2, 1, 2, 3, 0, 4, 4, 2, 0}),
              Tensor::from(std::vector<std::int32_t>{2, 5, 6, 9}), Output::logits};
  cases.push_back(make_case(name, "model: tokens to logits, 4 rows of 10", setup));
  setup.output = Output::ranking_loss;
  if (!has_output(setup)) return;
  cases.push_back(make_case(name, "model: ranking loss, its own parameters", setup));
}

struct KindOfBlock {
  std::string name;
  ModelConfig config;  // of one layer
};

// The kinds of block that the layers are made of.
std::vector<KindOfBlock> kinds_of_block(const ModelConfig& named) {
  std::vector<KindOfBlock> kinds;
  for (const bool attention : {false, true}) {
    const auto is_kind = [&](std::int64_t layer) {
      return attention == (named.attn && std::ranges::count(named.attn->layers, layer) != 0);
    };
    bool exists = false;
    for (std::int64_t i = 0; i < named.num_hidden_layers; ++i) exists = exists || is_kind(i);
    if (!exists) continue;
    ModelConfig config = shrink(named, 1);
    if (config.attn) config.attn->layers.clear();
    if (attention) {
      config.attn->layers = {0};
      config.sparse_arch = "none";  // the branch belongs to the other kind
    }
    kinds.push_back({attention ? "attention block" : "block", config});
  }
  return kinds;
}

// A model with both kinds of layer where there are two.
ModelConfig two_layers(const ModelConfig& named) {
  ModelConfig config = shrink(named, 2);
  if (config.attn && !config.attn->layers.empty()) {
    const bool everywhere = std::ssize(config.attn->layers) == named.num_hidden_layers;
    config.attn->layers = {1};
    if (everywhere) config.attn->layers = {0, 1};
  }
  return config;
}

}  // namespace

std::vector<GradCase> block_gradchecks() {
  std::vector<GradCase> cases;
  // Some names differ in their sizes only, which are the same here, and a base's attention blocks
  // are the same whatever the branch.
  std::set<std::string> seen;
  const auto is_new = [&seen](ModelConfig config) {
    config.resolve();
    return seen.insert(to_json(config)).second;
  };
  for (const std::string& base : base_arch_names()) {
    for (const std::string& sparse : sparse_arch_names()) {
      const ModelConfig named = named_config(base, sparse);
      try {
        ModelConfig(named).resolve();
      } catch (const UsageError&) {
        continue;  // this base does not take this branch
      }
      for (const auto& [block, config] : kinds_of_block(named)) {
        if (!is_new(config)) continue;
        add_blocks(cases, fmt::format("{} + {}", base, config.sparse_arch), block, config);
      }
      const ModelConfig model = two_layers(named);
      if (is_new(model)) add_models(cases, fmt::format("{} + {}", base, sparse), model);
    }
  }
  return cases;
}

}  // namespace hax
