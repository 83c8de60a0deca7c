// How a batch is cut into packs, and whether its arrays were padded, changes neither losses nor
// gradients.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "models/model.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"

using namespace hax;
using namespace hax::test;

namespace {

struct PackedStep {
  double lm_loss = 0, gate_loss = 0;
  Parameters gradients;
};

// Loss and gradient of a batch that is run pack by pack; `cuts` are the sequences where packs begin
// and the number of sequences.
PackedStep run_packs(const TestModel& m, const Batch& batch, const std::vector<std::int64_t>& cuts,
                     bool target_rows_only) {
  const DrawnInputs random(9, 1);
  PackedStep step{.gradients = Parameters(m.model.parameters(), DType::float64)};
  const Leaves leaves(m.parameters, step.gradients);
  for (std::size_t p = 0; p + 1 < cuts.size(); ++p) {
    const Batch pack = batch.slice(cuts[p], cuts[p + 1]);
    const ForwardContext context{.parameters = leaves,
                                 .random = random,
                                 .sequences = pack.sequences,
                                 .first_sequence = cuts[p],
                                 .sequences_in_batch = static_cast<double>(batch.count())};
    const ForwardResult out =
        m.model.forward(context, pack.tokens, target_rows_only ? pack.target_rows : Tensor{});
    const Var logits = target_rows_only ? out.logits : embedding(out.logits, pack.target_rows);
    Var loss =
        cross_entropy(logits, pack.target_labels, static_cast<double>(batch.target_rows.numel()));
    step.lm_loss += loss.value().item();
    if (out.aux_loss.defined()) {
      step.gate_loss += out.aux_loss.value().item();
      loss = add(loss, scale(out.aux_loss, 0.1));
    }
    backward(loss);
  }
  return step;
}

// max|a - b| / max|b|, of gradients however small. The last bias of the scoring network shifts all
// scores alike, which their differences do not see: its gradient is 0 up to rounding.
void check_equal(const PackedStep& a, const PackedStep& b) {
  CHECK(a.lm_loss == doctest::Approx(b.lm_loss).epsilon(1e-13));
  CHECK(a.gate_loss == doctest::Approx(b.gate_loss).epsilon(1e-13));
  for (std::size_t i = 0; i < b.gradients.specs().size(); ++i) {
    const std::string& name = b.gradients.specs()[i].name;
    INFO(name);
    const Tensor x = a.gradients.view(i), y = b.gradients.view(i);
    double worst = 0, size = 0;
    for (std::int64_t e = 0; e < y.numel(); ++e) {
      worst = std::max(worst, std::abs(x.data<double>()[e] - y.data<double>()[e]));
      size = std::max(size, std::abs(y.data<double>()[e]));
    }
    CHECK(std::isfinite(worst + size));
    if (name.ends_with("dx_proj_3.bias")) {
      CHECK(worst <= 1e-15);
    } else {
      CHECK(size > 0);
      CHECK(worst / size <= 1e-12);
    }
  }
}

// The same samples as padded arrays.
Batch through_padded_arrays(const Batch& batch, std::int64_t length) {
  const std::int64_t count = batch.count();
  Tensor tokens = Tensor::full({count, length}, kPadToken, DType::int32);
  Tensor labels = tokens.clone(), mask = Tensor::zeros({count, length}, DType::int64);
  Tensor attention = mask.clone();
  for (std::int64_t s = 0; s < count; ++s) {
    const Batch one = batch.slice(s, s + 1);
    for (std::int64_t i = 0; i < one.sequences.tokens(); ++i) {
      tokens.data<std::int32_t>()[s * length + i] = one.tokens.data<std::int32_t>()[i];
      labels.data<std::int32_t>()[s * length + i] = one.labels.data<std::int32_t>()[i];
      attention.data<std::int64_t>()[s * length + i] = 1;
    }
    for (const std::int32_t row : one.target_rows.values<std::int32_t>()) {
      mask.data<std::int64_t>()[s * length + row] = 1;
    }
  }
  return pack_padded(tokens, labels, mask, attention);
}

}  // namespace

TEST_CASE("any split of a batch into packs gives the same losses and gradients") {
  for (const auto& [arch, small] : all_small_configs()) {
    for (const NormMode mode : {NormMode::causal, NormMode::released}) {
      INFO(arch << (mode == NormMode::causal ? "" : ", released"));
      ModelConfig config = small;
      config.norm_mode = mode;
      const TestModel m(config, DType::float64, 5);
      const Batch batch = m.batch(5);
      const PackedStep whole = run_packs(m, batch, {0, 5}, false);
      CHECK(std::abs(whole.lm_loss) > 0.1);
      check_equal(run_packs(m, batch, {0, 5}, true), whole);
      check_equal(run_packs(m, batch, {0, 1, 2, 3, 4, 5}, true), whole);
      check_equal(run_packs(m, batch, {0, 1, 4, 5}, false), whole);
      check_equal(run_packs(m, batch, {0, 3, 3, 5}, true), whole);  // one pack without sequences
    }
  }
}

TEST_CASE("padding changes neither losses nor gradients") {
  for (const auto& [arch, small] : all_small_configs()) {
    INFO(arch);
    const TestModel m(small, DType::float64, 5);
    const Batch batch = m.batch(4);
    const PackedStep expected = run_packs(m, batch, {0, 4}, true);
    Batch bare = batch;  // as `pack` gives it, but nobody knows of a padded length
    std::vector<std::int64_t> lengths;
    for (std::int64_t s = 0; s < 4; ++s) lengths.push_back(batch.sequences.length(s));
    bare.sequences = Sequences::of_lengths(lengths);
    check_equal(run_packs(m, bare, {0, 4}, true), expected);
    const std::int64_t longest = *std::ranges::max_element(lengths);
    for (const std::int64_t length : {longest, longest + 1, longest + 50}) {
      const Batch padded = through_padded_arrays(batch, length);
      REQUIRE(padded.sequences.padded(0) == length);
      REQUIRE(same_bits(padded.tokens, batch.tokens));
      REQUIRE(same_bits(padded.target_rows, batch.target_rows));
      check_equal(run_packs(m, padded, {0, 4}, true), expected);
      check_equal(run_packs(m, padded, {0, 1, 2, 3, 4}, false), expected);
      check_equal(run_packs(m, padded, {0, 3, 4}, true), expected);
    }
  }
}

TEST_CASE("sequences without tokens change nothing, wherever they lie in the pack") {
  for (const auto& [arch, small] : all_small_configs()) {
    // Candidate draws are keyed by the place in the batch: an empty sequence moves those behind it.
    if (small.uses("key_selection")) continue;
    INFO(arch);
    const TestModel m(small, DType::float64, 5);
    const Batch batch = m.batch(2);
    const std::int64_t first = batch.sequences.length(0), second = batch.sequences.length(1);
    Batch with_empty = batch;
    with_empty.sequences = Sequences::of_lengths({0, first, 0, 0, second, 0});
    const std::int64_t one = batch.target_samples.length(0), two = batch.target_samples.length(1);
    with_empty.target_samples = Sequences::of_lengths({0, one, 0, 0, two, 0});
    const PackedStep expected = run_packs(m, batch, {0, 2}, true);
    check_equal(run_packs(m, with_empty, {0, 6}, true), expected);
    check_equal(run_packs(m, with_empty, {0, 1, 3, 6}, true), expected);
  }
}
