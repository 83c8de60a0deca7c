#include "train/step.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tests/support/compare.h"
#include "tests/support/models.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("shards are contiguous, complete and balanced by tokens") {
  std::vector<std::int64_t> lengths(64);
  std::iota(lengths.begin(), lengths.end(), 100);
  const Sequences sequences = Sequences::of_lengths(lengths);
  for (const std::int64_t shards : {1, 2, 3, 8}) {
    const std::vector<std::int64_t> cuts = cut_shards(sequences, shards);
    REQUIRE(static_cast<std::int64_t>(cuts.size()) == shards + 1);
    CHECK(cuts.front() == 0);
    CHECK(cuts.back() == 64);
    for (std::size_t g = 0; g + 1 < cuts.size(); ++g) {
      REQUIRE(cuts[g] <= cuts[g + 1]);
      std::int64_t tokens = 0;
      for (std::int64_t s = cuts[g]; s < cuts[g + 1]; ++s) tokens += sequences.length(s);
      CHECK(std::abs(tokens - sequences.tokens() / shards) <= 163);
    }
  }
  CHECK(cut_shards(Sequences::single(5), 8).back() == 1);
  CHECK(cut_shards(Sequences(), 3) == std::vector<std::int64_t>{0, 0, 0, 0});
}

TEST_CASE("evaluation equals the step's own losses") {
  const TestModel m(small_config("sign_bin_lsh+key_selection"), DType::float32, 2);
  const Batch batch = m.batch(6);
  const DrawnInputs random(4, 5);
  Parameters gradients(m.model.parameters());
  const StepResult trained = step_gradients(m.model, m.parameters, batch, random, {}, gradients);
  const StepResult evaluated = evaluate_batch(m.model, m.parameters, batch, random, 3);
  CHECK(evaluated.lm_loss == trained.lm_loss);
  CHECK(evaluated.accuracy == trained.accuracy);
  CHECK(evaluated.targets == batch.target_rows.numel());
  CHECK(evaluated.samples == 6);
  CHECK(trained.gate_loss > 0);
  CHECK(trained.loss == trained.lm_loss + 0.1 * trained.gate_loss);
}

TEST_CASE("a batch without targets is refused") {
  const TestModel m(small_config("none"), DType::float32, 2);
  Batch batch = m.batch(1);
  batch.target_rows = Tensor::empty({0}, DType::int32);
  Parameters gradients(m.model.parameters());
  CHECK(error_of([&] {
          step_gradients(m.model, m.parameters, batch, DrawnInputs(1, 1), {}, gradients);
        }) == "the batch has no token to predict");
}

TEST_CASE("an error inside a shard reaches the caller") {
  const TestModel m(small_config("none"), DType::float32, 2);
  Batch batch = m.batch(4);
  batch.tokens = batch.tokens.clone();
  batch.tokens.data<std::int32_t>()[batch.sequences.begin(2)] = 1000;
  Parameters gradients(m.model.parameters());
  CHECK(error_of([&] {
          step_gradients(m.model, m.parameters, batch, DrawnInputs(1, 1), {}, gradients);
        }).find("1000") != std::string::npos);
}

TEST_CASE("the gradient of a whole model equals finite differences of the loss") {
  for (const char* arch : {"none", "full", "sliding_window+sink", "sliding_window+dilated"}) {
    INFO(arch);
    ModelConfig config = small_config(arch);
    config.hidden_size = 6;
    config.intermediate_size = 10;
    config.state_size = 3;
    config.time_step_rank = 2;
    TestModel m(config, DType::float64, 11);
    const Batch batch = m.batch(2);
    const DrawnInputs random(4, 5);
    Parameters gradients(m.model.parameters(), DType::float64);
    Parameters scratch(m.model.parameters(), DType::float64);
    step_gradients(m.model, m.parameters, batch, random, {}, gradients);
    for (std::size_t p = 0; p < gradients.specs().size(); ++p) {
      INFO(gradients.specs()[p].name);
      Tensor value = m.parameters.view(p);
      const std::int64_t count = value.numel();
      for (const std::int64_t i : {std::int64_t{0}, count / 2, count - 1}) {
        double& x = value.data<double>()[i];
        const double centre = x, h = 1e-5;
        const auto loss_at = [&](double at) {
          x = at;
          return step_gradients(m.model, m.parameters, batch, random, {}, scratch).loss;
        };
        const double numeric = (loss_at(centre + h) - loss_at(centre - h)) / (2 * h);
        x = centre;
        const double analytic = gradients.view(p).data<double>()[i];
        CHECK(std::abs(numeric - analytic) <= 1e-7 + 1e-6 * std::abs(numeric));
      }
    }
  }
}
