// Sizes at the ends of what a configuration allows, forward and backward, for every architecture.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "models/architectures.h"
#include "models/model.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"

using namespace hax;
using namespace hax::test;

namespace {

struct PassResult {
  Tensor logits;
  Tensor aux_loss;  // undefined without a ranking loss
};

// One forward pass over a pack whose first sequence is the batch's `first`, and its backward pass
// into `gradients`.
PassResult pass(const Model& model, const Parameters& values, Parameters& gradients,
                const Sequences& sequences, const Tensor& tokens, const Tensor& dlogits,
                std::int64_t first = 0, double batch = 1,
                std::vector<LayerTrace>* trace = nullptr) {
  const DrawnInputs random(3, 1);
  const Leaves leaves(values, gradients);
  const ForwardResult out = model.forward({.parameters = leaves,
                                           .random = random,
                                           .sequences = sequences,
                                           .first_sequence = first,
                                           .sequences_in_batch = batch,
                                           .trace = trace},
                                          tokens);
  backward(out.logits, dlogits);
  if (!out.aux_loss.defined()) return {out.logits.value(), {}};
  backward(out.aux_loss);
  return {out.logits.value(), out.aux_loss.value()};
}

bool all_finite(const Tensor& tensor) {
  const Tensor x = tensor.to(DType::float64);
  return std::ranges::all_of(x.values<double>(), [](double v) { return std::isfinite(v); });
}

Tensor some_tokens(std::int64_t count, std::int64_t vocabulary) {
  std::vector<std::int32_t> tokens;
  RandomStream stream({.seed = 5});
  for (std::int64_t t = 0; t < count; ++t) {
    tokens.push_back(
        static_cast<std::int32_t>(stream.below(static_cast<std::uint32_t>(vocabulary))));
  }
  return Tensor::from(tokens);
}

// Finite results in both types, and each sequence of a pack as if it were alone.
void check_sizes(const ModelConfig& config) {
  const Model model(config);
  for (const DType dtype : {DType::float32, DType::float64}) {
    Parameters values(model.parameters(), dtype);
    values.initialize(8);
    for (const std::vector<std::int64_t>& lengths :
         {std::vector<std::int64_t>{1}, {1, 2, 1}, {0, 17, 0, 9}}) {
      INFO(name_of(dtype) << ", sequences of " << fmt::format("{}", fmt::join(lengths, ", ")));
      const Sequences sequences = Sequences::of_lengths(lengths);
      const Tensor tokens = some_tokens(sequences.tokens(), config.vocab_size);
      const Tensor dlogits = random_tensor({sequences.tokens(), config.vocab_size}, 2, dtype);
      const double batch = static_cast<double>(lengths.size());
      Parameters packed(model.parameters(), dtype), alone(model.parameters(), dtype);
      const PassResult all = pass(model, values, packed, sequences, tokens, dlogits, 0, batch);
      REQUIRE(all.logits.shape() == Shape{sequences.tokens(), config.vocab_size});
      CHECK(all_finite(all.logits));
      CHECK(all_finite(packed.flat()));
      if (dtype == DType::float32) continue;
      double aux_loss = 0;
      for (std::int64_t s = 0; s < sequences.count(); ++s) {
        const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
        const PassResult one = pass(model, values, alone, sequences.slice(s, s + 1),
                                    tokens.flat(begin, end), dlogits.rows(begin, end), s, batch);
        CHECK(relative_error(one.logits, all.logits.rows(begin, end)) <= 1e-12);
        if (one.aux_loss.defined()) aux_loss += one.aux_loss.item();
      }
      if (all.aux_loss.defined()) {
        CHECK(aux_loss == doctest::Approx(all.aux_loss.item()).epsilon(1e-12));
      }
      for (std::size_t i = 0; i < packed.specs().size(); ++i) {
        INFO(packed.specs()[i].name);
        CHECK(relative_error(alone.view(i), packed.view(i)) <= 1e-12);
      }
    }
  }
}

// Mamba2's heads of `size`, `count` of them, with a hidden size that fits; one head of attention.
ModelConfig with_heads(ModelConfig config, std::int64_t count, std::int64_t size) {
  config.num_heads = count;
  config.head_dim = size;
  config.expand = 2;
  config.intermediate_size = count * size;
  config.hidden_size = count * size / 2;
  if (config.attn) config.attn->num_heads = config.attn->num_kv_heads = 1;
  return config;
}

struct Change {
  const char* what;
  std::function<void(ModelConfig&)> apply;
};

const std::vector<Change>& changes() {
  static const std::vector<Change> all{
      {"one state", [](ModelConfig& c) { c.state_size = 1; }},
      {"7 states", [](ModelConfig& c) { c.state_size = 7; }},
      {"300 states", [](ModelConfig& c) { c.state_size = 300; }},
      {"heads of size 1", [](ModelConfig& c) { c = with_heads(c, 12, 1); }},
      {"heads of size 5", [](ModelConfig& c) { c = with_heads(c, 4, 5); }},
      {"a head of size 96", [](ModelConfig& c) { c = with_heads(c, 1, 96); }},
      {"chunks of 1", [](ModelConfig& c) { c.chunk_size = 1; }},
      {"a convolution of one tap", [](ModelConfig& c) { c.conv_kernel = 1; }},
      {"a convolution longer than the sequences", [](ModelConfig& c) { c.conv_kernel = 30; }},
      {"more keys than tokens",
       [](ModelConfig& c) {
         c.sparse_keys = 500;
         c.data_max_length = 500;
       }},
      {"one key of each component",
       [](ModelConfig& c) {
         c.sparse_keys =
             std::max<std::int64_t>(1, static_cast<std::int64_t>(c.sparse_components().size()));
       }},
      {"no query with a key",
       [](ModelConfig& c) {
         c.data_max_length = 10000;  // dilated: the first key lies behind every sequence
         c.num_hash = 62;            // hashed: next to no two vectors share a bin
       }},
      {"one token in the vocabulary", [](ModelConfig& c) { c.vocab_size = 1; }},
      {"one layer", [](ModelConfig& c) {
         c.num_hidden_layers = 1;
         if (c.attn) c.attn->layers.clear();
       }}};
  return all;
}

}  // namespace

TEST_CASE("odd shapes: finite results and gradients, and packed is as alone") {
  for (const auto& [arch, small] : all_small_configs()) {
    for (const Change& change : changes()) {
      INFO(arch << ", " << change.what);
      ModelConfig config = small;
      change.apply(config);
      check_sizes(config);
    }
  }
}

TEST_CASE("queries without a key exist in the models above, and send no gradient to Q and K") {
  for (const char* base : {"mamba", "mamba2"}) {
    for (const char* sparse : {"dilated", "sign_bin_lsh"}) {
      INFO(base << " + " << sparse);
      ModelConfig config = small_config(base, sparse);
      config.data_max_length = 10000;
      config.num_hash = 62;
      const Model model(config);
      Parameters values(model.parameters()), gradients(model.parameters());
      values.initialize(8);
      const Sequences sequences = Sequences::of_lengths({1, 17});
      std::vector<LayerTrace> trace;
      pass(model, values, gradients, sequences, some_tokens(18, config.vocab_size),
           random_tensor({18, config.vocab_size}, 2, DType::float32), 0, 2, &trace);
      std::size_t keyless = 0, all = 0;
      for (const auto& keys : to_lists(trace.at(0).keys)) {
        if (keys.empty()) ++keyless;
        ++all;
      }
      CHECK(all == 18);
      CHECK(keyless >= 12);
      if (sparse == std::string("dilated")) {
        CHECK(keyless == all);
        const Tensor dxx = gradients.find("backbone.layers.0.mixer.xx_proj.weight");
        CHECK(std::ranges::all_of(dxx.values<float>(), [](float g) { return g == 0; }));
        // E scales an attention output of zero.
        const Tensor dE = gradients.find("backbone.layers.0.mixer.E");
        CHECK(std::ranges::all_of(dE.values<float>(), [](float g) { return g == 0; }));
      }
    }
  }
}

TEST_CASE("rotary heads of an odd size are refused, naming what to change") {
  for (const std::string& base : base_arch_names()) {
    ModelConfig config = named_config(base, "none");
    if (!config.attn) continue;
    INFO(base);
    config = small_config(base, "none");
    config.hidden_size = 12;
    config.attn->num_heads = config.attn->num_kv_heads = 4;
    const std::string error = error_of([&] { const Model model(config); });
    CHECK(error.find("attn.num_heads") != std::string::npos);
    CHECK(error.find("size 3") != std::string::npos);
    CHECK(error.find("even") != std::string::npos);
    CHECK(error.find('\n') == std::string::npos);
    config.attn->num_heads = config.attn->num_kv_heads = 3;
    CHECK(error_of([&] { const Model model(config); }).empty());
  }
}
