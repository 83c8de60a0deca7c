// Properties that every architecture must have.
#include "models/model.h"

#include <doctest/doctest.h>

#include <cmath>

#include "models/architectures.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"
#include "train/optimizer.h"
#include "train/step.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("editing a later token never changes an earlier logit") {
  for (const auto& [arch, small] : all_small_configs()) {
    INFO(arch);
    const TestModel m(small, DType::float32, 3);
    const Batch batch = m.batch(2);
    const std::int64_t cut = batch.sequences.length(0) / 2;
    Tensor edited = batch.tokens.clone();
    for (std::int64_t t = cut; t < batch.sequences.length(0); ++t) {
      std::int32_t& token = edited.data<std::int32_t>()[t];
      token = (token + 7) % 40;
    }
    const Tensor before = m.logits(batch.sequences, batch.tokens);
    const Tensor after = m.logits(batch.sequences, edited);
    CHECK(same_bits(before.rows(0, cut), after.rows(0, cut)));
    CHECK(!same_bits(before.rows(cut, before.size(0)), after.rows(cut, before.size(0))));
    // The other sequence of the pack does not notice either.
    const std::int64_t second = batch.sequences.begin(1);
    CHECK(same_bits(before.rows(second, before.size(0)), after.rows(second, before.size(0))));
  }
}

TEST_CASE("the paper's widths: edits of any later tokens leave earlier logits bit for bit") {
  for (const std::string& base : base_arch_names()) {
    const TestModel m(named_config(base, "none"), DType::float32, 3);
    const Batch batch = m.batch(1);
    const std::int64_t length = batch.sequences.length(0), cut = length - 7;
    const Tensor before = m.logits(batch.sequences, batch.tokens);
    // The number of distinct tokens changes from edit to edit, and with it the table of the first
    // layer.
    RandomStream stream({.seed = 1});
    for (int edit = 0; edit < 12; ++edit) {
      INFO(base << " edit " << edit);
      Tensor edited = batch.tokens.clone();
      for (std::int64_t t = cut; t < length; ++t) {
        const std::uint32_t kinds = 1 + static_cast<std::uint32_t>(edit) * 8;
        edited.data<std::int32_t>()[t] = static_cast<std::int32_t>(stream.below(kinds));
      }
      const Tensor after = m.logits(batch.sequences, edited);
      CHECK(same_bits(before.rows(0, cut), after.rows(0, cut)));
    }
  }
}

TEST_CASE("rows wanted are the rows of the full result") {
  for (const auto& [arch, small] : all_small_configs()) {
    for (const NormMode mode : {NormMode::causal, NormMode::released}) {
      INFO(arch);
      ModelConfig config = small;
      config.norm_mode = mode;
      const TestModel m(config, DType::float64, 4);
      const Batch batch = m.batch(3);
      const Tensor all = m.logits(batch.sequences, batch.tokens);
      const Tensor wanted = m.logits(batch.sequences, batch.tokens, batch.target_rows);
      CHECK(relative_error(wanted, embedding(all, batch.target_rows).value()) < 1e-12);
    }
  }
}

namespace {

// Gradients of one pack with every row against those of whole sequences one after another with the
// target rows only, as in training.
void check_packing_keeps_gradients(const TestModel& m, const Batch& batch) {
  const DrawnInputs random(9, 1);
  Parameters whole(m.model.parameters(), DType::float64),
      split(m.model.parameters(), DType::float64);
  const Leaves leaves(m.parameters, whole);
  const ForwardContext context{.parameters = leaves,
                               .random = random,
                               .sequences = batch.sequences,
                               .sequences_in_batch = static_cast<double>(batch.count())};
  const ForwardResult out = m.model.forward(context, batch.tokens);
  Var loss = cross_entropy(embedding(out.logits, batch.target_rows), batch.target_labels,
                           static_cast<double>(batch.target_rows.numel()));
  if (out.aux_loss.defined()) loss = add(loss, scale(out.aux_loss, 0.1));
  backward(loss);
  for (const std::int64_t shards : {1, 2, 8}) {
    const StepResult step =
        step_gradients(m.model, m.parameters, batch, random, {0.1, shards}, split);
    CHECK(step.loss == doctest::Approx(loss.value().item()).epsilon(1e-12));
    for (std::size_t i = 0; i < split.specs().size(); ++i) {
      INFO(split.specs()[i].name);
      if (split.specs()[i].name.ends_with("dx_proj_3.bias")) continue;  // rounding noise
      CHECK(relative_error(split.view(i), whole.view(i)) < 1e-12);
    }
  }
}

// Other widths, with everything else that must fit them.
ModelConfig with_sizes(ModelConfig config, std::int64_t hidden, std::int64_t state,
                       std::int64_t kernel) {
  config.hidden_size = hidden;
  config.intermediate_size = 2 * hidden;
  config.state_size = state;
  config.conv_kernel = kernel;
  config.time_step_rank = 1;
  config.num_heads = 2;
  config.head_dim = hidden;
  config.chunk_size = hidden;
  if (config.attn) {  // one even head
    config.hidden_size = 2 * hidden;
    config.attn->num_heads = config.attn->num_kv_heads = 1;
  }
  return config;
}

}  // namespace

TEST_CASE("packing changes neither losses nor gradients") {
  for (const auto& [arch, small] : all_small_configs()) {
    INFO(arch);
    const TestModel m(small, DType::float64, 5);
    check_packing_keeps_gradients(m, m.batch(5));
  }
}

TEST_CASE("every architecture overfits four samples and every parameter gets a gradient") {
  for (const auto& [arch, small] : all_small_configs()) {
    INFO(arch);
    TestModel m(small, DType::float32, 6);
    const Batch batch = m.batch(4);
    AdamW optimizer(m.model.parameters(), {.weight_decay = 0});
    Parameters gradients(m.model.parameters());
    double loss = 1e9;
    const double goal = 0.1 * std::log(static_cast<double>(m.task.values));
    std::int64_t step = 0;
    while (loss > goal && step < 1500) {
      ++step;
      const StepResult result = step_gradients(m.model, m.parameters, batch, DrawnInputs(1, 1),
                                               {.gate_loss_weight = 0.1}, gradients);
      loss = result.lm_loss;
      if (step == 1) {
        for (std::size_t i = 0; i < gradients.specs().size(); ++i) {
          const std::string& name = gradients.specs()[i].name;
          INFO(name);
          double largest = 0;
          const Tensor gradient = gradients.view(i);
          for (const float g : gradient.values<float>()) {
            largest = std::max<double>(largest, std::abs(g));
          }
          CHECK(std::isfinite(largest));
          if (!name.ends_with("dx_proj_3.bias")) CHECK(largest > 1e-9);
        }
      }
      optimizer.update(step, warmup_rate(1e-2, step, 20), gradients, m.parameters);
    }
    CHECK(loss <= goal);
  }
}

TEST_CASE("odd sizes: one state, one channel, wide kernels, one token, more keys than tokens") {
  for (const auto& [arch, small] : all_small_configs()) {
    for (const auto& [hidden, state, kernel, keys] :
         {std::tuple{1, 1, 1, 2}, {3, 7, 9, 4}, {5, 30, 2, 500}}) {
      INFO(arch);
      ModelConfig config = with_sizes(small, hidden, state, kernel);
      config.sparse_keys = keys;
      config.data_max_length = 1000;
      const TestModel m(config, DType::float32, 8);
      for (const std::vector<std::int64_t>& lengths :
           {std::vector<std::int64_t>{1}, {1, 2, 1}, {0, 17, 0}}) {
        const Sequences sequences = Sequences::of_lengths(lengths);
        Tensor tokens = Tensor::full({sequences.tokens()}, 11, DType::int32);
        const Tensor logits = m.logits(sequences, tokens);
        CHECK(logits.size(0) == sequences.tokens());
        bool finite = true;
        for (const float x : logits.values<float>()) finite = finite && std::isfinite(x);
        CHECK(finite);
      }
    }
    struct Odd {
      std::int64_t hidden, state, kernel, hashes;
      bool bias;
    };
    for (const Odd& odd :
         {Odd{3, 1, 1, 1, true}, Odd{5, 7, 9, 62, false}, Odd{2, 300, 3, 5, true}}) {
      INFO(arch << ", state " << odd.state);
      ModelConfig config = with_sizes(small, odd.hidden, odd.state, odd.kernel);
      config.num_hash = odd.hashes;
      config.use_bias = odd.bias;
      const TestModel m(config, DType::float64, 8);
      check_packing_keeps_gradients(m, m.batch(3));
    }
  }
}

TEST_CASE("a Transformer sees to the first token, with a window no farther than its layers reach") {
  const std::int64_t length = 40;
  Tensor tokens = Tensor::full({length}, 11, DType::int32);
  Tensor edited = tokens.clone();
  edited.data<std::int32_t>()[0] = 12;
  for (const bool window : {false, true}) {
    ModelConfig config = small_config("transformer", "none");
    if (window) config.attn->window_size = 4;
    const TestModel m(config, DType::float32, 3);
    const Sequences sequence = Sequences::single(length);
    const Tensor before = m.logits(sequence, tokens), after = m.logits(sequence, edited);
    // Two layers of three steps back each.
    for (const std::int64_t t : {std::int64_t{0}, std::int64_t{6}, std::int64_t{7}, length - 1}) {
      INFO("window " << window << ", token " << t);
      CHECK(same_bits(before.rows(t, t + 1), after.rows(t, t + 1)) == (window && t > 6));
    }
  }
}

TEST_CASE("tokens outside the vocabulary are refused") {
  const TestModel m(small_config("none"), DType::float32, 1);
  const Tensor tokens = Tensor::full({3}, 99999, DType::int32);
  CHECK(error_of([&] { m.logits(Sequences::single(3), tokens); }).find("99999") !=
        std::string::npos);
}
