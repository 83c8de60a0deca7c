// What the inspector gathers. tests/tools/inspect_fixture_test.cpp compares it with fixtures.
#include "train/inspection.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/autograd.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"
#include "train/inspection_pictures.h"

using namespace hax;
using namespace hax::test;

namespace {

// Weighs what an attention op read by the weights of a picture, beside what it computed.
class AttentionCheck final : public Watcher {
 public:
  struct Seen {
    bool sparse;  // else several heads, over which pictures have means
    Tensor V, y;
  };
  std::vector<Seen> seen;
  void on_forward(const OpEvent& event, std::span<const Var> inputs,
                  std::span<const Tensor> outputs) override {
    if (std::string_view(event.op).ends_with("_attention")) {
      seen.push_back({event.scope.ends_with(".sparse"), inputs[2].value(), outputs[0]});
    }
  }
};

}  // namespace

TEST_CASE("inspection: weights of attention make of the values what the op computed") {
  for (const auto& [name, config] : all_small_configs()) {
    INFO(name);
    if (config.sparse_arch == "none") continue;
    const TestModel m(config, DType::float32, 5);
    const Batch batch = m.batch(2);
    const DrawnInputs random(1, 1);
    AttentionCheck check;
    Inspection inspection;
    {
      const Watch watch(check);
      inspection = inspect_step({m.model, m.parameters, random, batch});
    }
    REQUIRE(inspection.attention.size() == check.seen.size() * 2);
    for (std::size_t a = 0; a < inspection.attention.size(); ++a) {
      const AttentionPicture& picture = inspection.attention[a];
      const AttentionCheck::Seen& op = check.seen[a / 2];
      if (!op.sparse) continue;
      const std::int64_t begin = batch.sequences.begin(picture.sample), dim = op.y.size(1);
      double error = 0;
      for (std::size_t i = 0; i < picture.queries.size(); ++i) {
        if (picture.queries[i].empty()) continue;
        for (std::int64_t c = 0; c < dim; ++c) {
          double sum = 0;
          for (const AttendedKey& key : picture.queries[i]) {
            sum += static_cast<double>(key.weight) *
                   static_cast<double>(op.V.data<float>()[(begin + key.key) * dim + c]);
          }
          const auto row = begin + static_cast<std::int64_t>(i);
          error = std::max(error,
                           std::abs(sum - static_cast<double>(op.y.data<float>()[row * dim + c])));
        }
      }
      CHECK(error < 1e-5);
    }
  }
}

TEST_CASE("inspection: the update is the optimiser's next, with its moments and clipped") {
  const TestModel m(small_config("mamba", "none"), DType::float32, 3);
  const Batch batch = m.batch(1);
  const DrawnInputs random(1, 1);
  const auto ratios = [&](AdamW* optimizer, std::int64_t done, double clip_norm) {
    const Inspection seen = inspect_step({.model = m.model,
                                          .parameters = m.parameters,
                                          .random = random,
                                          .batch = batch,
                                          .lr = 1e-3,
                                          .clip_norm = clip_norm,
                                          .optimizer = optimizer,
                                          .steps_done = done});
    CHECK(seen.update_step == done + 1);
    std::vector<double> all;
    for (const InspectedParameter& p : seen.parameters) all.push_back(p.update_ratio);
    return all;
  };
  const std::vector<double> fresh = ratios(nullptr, 0, 0);
  AdamW optimizer(m.model.parameters());
  CHECK(ratios(&optimizer, 0, 0) == fresh);
  // The same gradient again, with the moments that it left: again the same update.
  const std::vector<double> second = ratios(&optimizer, 1, 0);
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    CHECK(second[i] == doctest::Approx(fresh[i]).epsilon(1e-3));
  }
  // Large moments stand in its way.
  fill(optimizer.second_moments().flat(), 1e6);
  fill(optimizer.first_moments().flat(), 0);
  for (const double ratio : ratios(&optimizer, 2, 0)) CHECK(ratio < 1e-4);
  // Clipped far below the eps of AdamW the update shrinks; otherwise it is blind to the scale.
  AdamW other(m.model.parameters(), AdamWOptions{.weight_decay = 0});
  for (const double ratio : ratios(&other, 0, 1e-12)) CHECK(ratio < 1e-5);
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
