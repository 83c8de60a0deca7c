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
#include "train/inspection_pictures.h"

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
  const std::int64_t length = 5, dim = 3, state = 2;
  const auto positive = [](Tensor x) {
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      x.data<double>()[i] = std::abs(x.data<double>()[i]) + 0.1;
    }
    return x;
  };
  const Tensor u = random_tensor({length, dim}, 1), dt = positive(random_tensor({length, dim}, 2));
  Tensor A = positive(random_tensor({dim, state}, 3));
  const Tensor B = random_tensor({length, state}, 4);
  for (std::int64_t i = 0; i < A.numel(); ++i) A.data<double>()[i] *= -1;
  const auto at = [](const Tensor& x, std::int64_t r, std::int64_t c) {
    return x.data<double>()[r * x.size(1) + c];
  };
  const std::vector<MemoryPicture> pictures =
      scan_pictures(u, dt, A, B, Sequences::of_lengths({0, length}));
  REQUIRE(pictures.size() == 2);
  CHECK(pictures[0].kept.empty());
  for (std::int64_t t = 0; t < length; ++t) {
    const auto row = static_cast<std::size_t>(t);
    double square = 0;
    std::vector<double> kept(static_cast<std::size_t>(t + 1));
    for (std::int64_t e = 0; e < dim; ++e) {
      for (std::int64_t n = 0; n < state; ++n) {
        double h = 0;
        for (std::int64_t j = 0; j <= t; ++j) {
          double passed = 0;
          for (std::int64_t k = j + 1; k <= t; ++k) passed += at(dt, k, e);
          const double left = std::exp(passed * at(A, e, n));
          h += left * at(dt, j, e) * at(B, j, n) * at(u, j, e);
          kept[static_cast<std::size_t>(t - j)] += left / static_cast<double>(dim * state);
        }
        square += h * h;
      }
    }
    CHECK(pictures[1].state_norm[row] == doctest::Approx(std::sqrt(square)));
    const std::vector<float>& mine = pictures[1].kept[row];
    for (std::size_t d = 0; d < kept.size(); ++d) {
      if (d < mine.size()) CHECK(mine[d] == doctest::Approx(kept[d]).epsilon(1e-5));
      if (d == mine.size()) CHECK(kept[d] < 1e-3);
    }
  }
}

TEST_CASE("inspection: a state-space dual is a scan whose channels share a head's decay") {
  const std::int64_t length = 4, heads = 2, head_dim = 3, state = 2;
  const Tensor x = random_tensor({length, heads * head_dim}, 5);
  const Tensor B = random_tensor({length, state}, 6);
  const Tensor dt = Tensor::full({length, heads}, 0.3, DType::float64);
  const Tensor A = Tensor::full({heads}, -0.7, DType::float64);
  const Sequences pack = Sequences::single(length);
  const MemoryPicture dual = ssd_pictures(x, dt, A, B, 1, pack).front();
  const MemoryPicture scan =
      scan_pictures(x, Tensor::full({length, heads * head_dim}, 0.3, DType::float64),
                    Tensor::full({heads * head_dim, state}, -0.7, DType::float64), B, pack)
          .front();
  for (std::size_t t = 0; t < dual.state_norm.size(); ++t) {
    CHECK(dual.state_norm[t] == doctest::Approx(scan.state_norm[t]));
    REQUIRE(dual.kept[t].size() == scan.kept[t].size());
    for (std::size_t d = 0; d < dual.kept[t].size(); ++d) {
      CHECK(dual.kept[t][d] == doctest::Approx(scan.kept[t][d]));
    }
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
