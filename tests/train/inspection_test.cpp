// The inspector's numbers against those of fixtures, which an independent implementation wrote.
#include "train/inspection.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"
#include "tests/support/models.h"
#include "train/fixture.h"

using namespace hax;
using namespace hax::test;

namespace {

// |a - b| within 1e-4 of `size`.
void check_close(double a, double b, double size) { CHECK(std::abs(a - b) <= 1e-4 * size + 1e-12); }

// `size`: what the errors of single numbers are measured against.
void check_stats(const NumberStats& mine, const NumberStats& wanted, double size) {
  CHECK(mine.count == wanted.count);
  CHECK(mine.nan == 0);
  CHECK(mine.infinite == 0);
  check_close(mine.min, wanted.min, size);
  check_close(mine.max, wanted.max, size);
  check_close(mine.mean, wanted.mean, size);
  check_close(mine.std, wanted.std, size);
  check_close(mine.norm, wanted.norm, size * std::sqrt(static_cast<double>(mine.count)));
}
double size_of_numbers(const NumberStats& stats) {
  return std::max(std::abs(stats.min), std::abs(stats.max));
}

void check_attention(const Inspection& inspection, const SafeTensors& file) {
  for (const AttentionPicture& picture : inspection.attention) {
    const auto found = file.tensors.find(fmt::format("debug.attended.{}", picture.layer));
    if (picture.op != "sparse_attention" || found == file.tensors.end()) continue;
    const std::int64_t length = found->second.size(1);
    const std::uint8_t* allowed =
        found->second.data<std::uint8_t>() + picture.sample * length * length;
    for (std::size_t i = 0; i < picture.queries.size(); ++i) {
      double sum = 0;
      std::vector<std::uint8_t> mine(static_cast<std::size_t>(length));
      for (const AttendedKey& key : picture.queries[i]) {
        mine[static_cast<std::size_t>(key.key)] = 1;
        sum += key.weight;
      }
      CHECK(std::equal(mine.begin(), mine.end(), allowed + static_cast<std::int64_t>(i) * length));
      CHECK((picture.queries[i].empty() || std::abs(sum - 1) < 1e-5));
    }
    const auto scores = file.tensors.find(fmt::format("debug.key_score.{}", picture.layer));
    if (scores == file.tensors.end()) continue;
    const Tensor wanted = scores->second.to(DType::float64);
    REQUIRE(picture.key_score.size() == picture.queries.size());
    for (std::size_t t = 0; t < picture.key_score.size(); ++t) {
      check_close(picture.key_score[t],
                  wanted.data<double>()[picture.sample * length + static_cast<std::int64_t>(t)], 1);
    }
  }
}

}  // namespace

TEST_CASE("inspection: losses, parameters, gradients, sets and scores are those of the fixtures") {
  for (const std::string& name : fixture_names()) {
    INFO(name);
    const SafeTensors file = read_safetensors(fixture_path(name));
    Inspection inspection;
    with_fixture(fixture_path(name), DType::float32, [&](const FixtureStep& step) {
      inspection = inspect_step(
          {step.model, step.parameters, step.random, step.batch, step.gate_loss_weight});
    });
    for (const auto& [what, mine] :
         {std::pair{"lm_loss", inspection.lm_loss}, std::pair{"gate_loss", inspection.gate_loss},
          std::pair{"loss", inspection.loss}, std::pair{"accuracy", inspection.accuracy}}) {
      INFO(what);
      check_close(mine, file.tensors.at(what).item(), 1);
    }
    double largest = 0;
    for (const InspectedParameter& parameter : inspection.parameters) {
      largest =
          std::max(largest, size_of_numbers(stats_of(file.tensors.at("grad." + parameter.name))));
    }
    std::size_t known = 0;
    for (const auto& [tensor, value] : file.tensors) known += tensor.starts_with("param.") ? 1 : 0;
    CHECK(inspection.parameters.size() == known);
    for (const InspectedParameter& parameter : inspection.parameters) {
      INFO(parameter.name);
      const NumberStats value = stats_of(file.tensors.at("param." + parameter.name));
      const NumberStats gradient = stats_of(file.tensors.at("grad." + parameter.name));
      check_stats(parameter.tensor.value, value, size_of_numbers(value));
      REQUIRE(parameter.tensor.gradient);
      check_stats(*parameter.tensor.gradient, gradient,
                  std::max(size_of_numbers(gradient), 1e-4 * largest));
      CHECK(parameter.update_ratio >= 0);
    }
    check_attention(inspection, file);
  }
}

TEST_CASE("inspection: the graph hangs together and gradients go from op to op") {
  const TestModel m(small_config("mamba", "sign_bin_lsh+key_selection"), DType::float32, 3);
  const Batch batch = m.batch(2);
  const DrawnInputs random(1, 1);
  const Inspection seen = inspect_step({m.model, m.parameters, random, batch});
  int backward = 0;
  for (std::size_t i = 0; i < seen.ops.size(); ++i) {
    const InspectedOp& op = seen.ops[i];
    INFO(op.op << " in " << op.scope);
    backward += op.backward_order >= 0 ? 1 : 0;
    CHECK(op.forward_s >= 0);
    for (const InspectedInput& input : op.inputs) {
      CHECK(input.op < static_cast<int>(i));
      if (input.op < 0) continue;
      const InspectedOp& from = seen.ops[static_cast<std::size_t>(input.op)];
      CHECK(static_cast<std::size_t>(input.output) < from.outputs.size());
      // A gradient is sent before the op that it goes to is reached.
      if (input.gradient_norm >= 0) CHECK(op.backward_order < from.backward_order);
    }
    // The only reader of an output sends all of its gradient.
    for (const InspectedTensor& y : op.outputs) CHECK(y.value.count == y.shape.numel());
  }
  CHECK(backward > 20);
  CHECK(seen.attention.size() == 4);  // 2 layers, 2 samples
  CHECK(seen.memory.size() == 4);
  CHECK(seen.targets.size() == static_cast<std::size_t>(batch.target_rows.numel()));
}

TEST_CASE("inspection: what a state keeps is the product of its decays") {
  TestModel m(small_config("mamba2", "none"), DType::float32, 4);
  const Batch batch = m.batch(1);
  const DrawnInputs random(1, 1);
  const Inspection seen = inspect_step({m.model, m.parameters, random, batch});
  REQUIRE(!seen.memory.empty());
  const MemoryPicture& picture = seen.memory.front();
  REQUIRE(picture.kept.size() == static_cast<std::size_t>(batch.sequences.length(0)));
  for (std::size_t t = 0; t < picture.kept.size(); ++t) {
    REQUIRE(!picture.kept[t].empty());
    CHECK(picture.kept[t].size() <= t + 1);
    CHECK(picture.kept[t][0] == 1);
    for (std::size_t d = 1; d < picture.kept[t].size(); ++d) {
      CHECK(picture.kept[t][d] < picture.kept[t][d - 1]);
    }
    CHECK(picture.dt_least[t] <= picture.dt_mean[t]);
    CHECK(picture.dt_mean[t] <= picture.dt_most[t]);
  }
}

TEST_CASE("stats_of: numbers, zeros, NaN and the histogram") {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const NumberStats stats = stats_of(Tensor::from(std::vector<float>{0, 2, nan, -2, 4, inf, 0}));
  CHECK(stats.count == 7);
  CHECK(stats.zeros == 2);
  CHECK(stats.nan == 1);
  CHECK(stats.infinite == 1);
  CHECK(stats.min == -2);
  CHECK(stats.max == 4);
  CHECK(stats.mean == doctest::Approx(0.8));
  CHECK(stats.std == doctest::Approx(std::sqrt(4.16)));
  CHECK(stats.norm == doctest::Approx(std::sqrt(24.0)));
  CHECK(stats.histogram.front() == 1);
  CHECK(stats.histogram.back() == 1);
  CHECK(stats.histogram[8] == 2);  // the zeros: a third of the way
  const NumberStats none = stats_of(Tensor::empty({0}, DType::float32));
  CHECK(none.count == 0);
  CHECK(none.histogram.empty());
  CHECK(stats_of(Tensor::full({3}, 5)).histogram.front() == 3);
}
