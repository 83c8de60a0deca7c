// Training steps as graphs: the same bits as launch by launch, for every architecture.
#include <doctest/doctest.h>

#include <optional>

#include "tests/support/compare.h"
#include "tests/support/cuda.h"
#include "tests/support/models.h"
#include "train/device_step.h"
#include "train/options.h"
#include "train/task.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Run {
  Run(const ModelConfig& config, const Task& task, const PrefetchOptions& order, bool graphs)
      : model(config),
        parameters(model.parameters(), DType::float32, kCuda),
        gradients(model.parameters(), DType::float32, kCuda),
        optimizer(model.parameters(), {}, kCuda),
        steps((parameters.initialize(3), model), task, order, graphs, optimizer, gradients,
              parameters) {}

  Model model;
  Parameters parameters, gradients;
  AdamW optimizer;
  DeviceSteps steps;
};

// Two combinations of sizes, so that two batches of one sample each repeat.
std::unique_ptr<Task> two_lengths() {
  TrainOptions options;
  options.contexts = "2:2";
  options.keys = "2:3";
  options.values = 8;
  return open_task(options);
}

ModelConfig fitting(const ModelConfig& config, const Task& task) {
  ModelConfig fits = config;
  fits.vocab_size = std::max(fits.vocab_size, task.vocab_size());
  fits.resolve();
  return fits;
}

}  // namespace

TEST_CASE("steps as graphs leave the same bits as launch by launch") {
  if (!cuda_is_here()) return;
  const std::unique_ptr<Task> task = two_lengths();
  for (const NamedConfig& named : all_small_configs()) {
    INFO(named.name);
    const ModelConfig config = fitting(named.config, *task);
    const PrefetchOptions order{.bsz = 1, .packs = 1, .seed = 5};
    Run one(config, *task, order, true), other(config, *task, order, false);
    for (std::int64_t step = 1; step <= 6; ++step) {
      INFO(step);
      const UpdateOptions update{
          .step = step, .lr = 0.01 / static_cast<double>(step), .gate_loss_weight = 0.1};
      const StepOutcome a = one.steps.next(update), b = other.steps.next(update);
      CHECK(a.result.lm_loss == b.result.lm_loss);
      CHECK(a.result.gate_loss == b.result.gate_loss);
      CHECK(a.result.accuracy == b.result.accuracy);
      CHECK(a.result.tokens == b.result.tokens);
      CHECK(a.norm == b.norm);
      REQUIRE(same_bits(one.parameters.flat().to(kCpu), other.parameters.flat().to(kCpu)));
    }
    CHECK(one.steps.why_no_graphs() == "");
    CHECK(one.steps.graphs() == 2);
    CHECK(other.steps.graphs() == 0);
  }
}

TEST_CASE("graphs of several packs, clipped, go on from any step") {
  if (!cuda_is_here()) return;
  const std::unique_ptr<Task> task = two_lengths();
  const ModelConfig config = fitting(small_config("sign_bin_lsh+key_selection"), *task);
  const PrefetchOptions order{.bsz = 3, .packs = 2, .first = 5, .seed = 5};
  Run one(config, *task, order, true), other(config, *task, order, false);
  for (std::int64_t step = 6; step <= 10; ++step) {
    const UpdateOptions update{
        .step = step, .lr = 0.01, .clip_norm = 0.05, .gate_loss_weight = 0.1};
    const StepOutcome a = one.steps.next(update), b = other.steps.next(update);
    CHECK(a.norm > 0.05);
    CHECK(a.norm == b.norm);
    REQUIRE(same_bits(one.parameters.flat().to(kCpu), other.parameters.flat().to(kCpu)));
  }
  CHECK(one.steps.graphs() == 1);
}
