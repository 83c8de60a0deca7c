// The counts behind every floor that `hax bench` prints, pinned to the table they were first worked
// out in (a separate program, independent of this one).
#include "train/step_work.h"

#include <doctest/doctest.h>

#include "data/joint_recall.h"
#include "models/architectures.h"

using namespace hax;

namespace {

// The mean batch of 64: every combination of 5..16 contexts and 5..16 keys once, scaled.
struct MeanBatch {
  Sequences sequences;
  std::int64_t targets = 0;
  double scale = 0;

  MeanBatch() {
    const JointRecallTask task;
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 0; i < task.size_count(); ++i) {
      lengths.push_back(task.length(task.sizes(i)) - 1);
      targets += task.entries(task.sizes(i));
    }
    sequences = Sequences::of_lengths(lengths);
    scale = 64.0 / static_cast<double>(lengths.size());
  }

  Work work(const char* base, const char* sparse, bool removed) const {
    ModelConfig config = named_config(base, sparse);
    config.resolve();
    return scale * step_work(config, sequences, targets, removed);
  }
};

// Two cores at 520 GFLOP/s of multiply-adds, 400 in products, 23.8 G exponentials a second.
constexpr MachineLimits kTwoCores{.products = 400e9, .other = 520e9, .exps = 23.8e9};

struct Counted {
  const char *base, *sparse;
  int hidden;
  double products, other, exps;  // GFLOP, GFLOP, G
  double gigabytes;              // of float32, fully fused
  double full_ms, removed_ms;
  double removed_products, removed_other;
};

constexpr const char* kHax = "sign_bin_lsh+key_selection";
constexpr Counted kTable[] = {
    {"mamba", kHax, 64, 12.9, 7.7, .31, 1.18, 60, 44, 7.8, 5.8},
    {"mamba2", kHax, 64, 14.6, 10.5, .05, 1.27, 58, 39, 8.6, 8.1},
    {"mamba_2x", "none", 128, 39.9, 7.1, .61, 1.73, 137, 86, 19.3, 6.4},
    {"mamba2_2x", "none", 128, 38.8, 11.4, .07, 1.71, 120, 64, 16.6, 10.1},
};

void check_digits(double value, double printed, double last_digit) {
  CHECK(value >= printed - last_digit / 2);
  CHECK(value <= printed + last_digit / 2);
}

}  // namespace

TEST_CASE("the work of a step is what was counted by hand") {
  const MeanBatch batch;
  CHECK(batch.scale * static_cast<double>(batch.sequences.tokens()) == doctest::Approx(29632));
  CHECK(batch.scale * static_cast<double>(batch.targets) == doctest::Approx(7056));
  for (const Counted& row : kTable) {
    INFO(row.base << " + " << row.sparse);
    const Work full = batch.work(row.base, row.sparse, false);
    const Work removed = batch.work(row.base, row.sparse, true);
    check_digits(full.products / 1e9, row.products, .1);
    check_digits(full.other / 1e9, row.other, .1);
    check_digits(full.exps / 1e9, row.exps, .01);
    check_digits(4 * full.numbers / 1e9, row.gigabytes, .01);
    // The table's milliseconds before the removals leave the logits out, those after include them.
    const double logits = 6.0 * 7056 * 100 * static_cast<double>(row.hidden);
    check_digits(1e3 * (floor_seconds(full, kTwoCores) - logits / kTwoCores.products), row.full_ms,
                 1);
    check_digits(removed.products / 1e9, row.removed_products, .1);
    check_digits(removed.other / 1e9, row.removed_other, .1);
    check_digits(1e3 * floor_seconds(removed, kTwoCores), row.removed_ms, 1);
  }
}

TEST_CASE("keys a query sees at most") {
  const auto mean = [](const char* sparse, std::int64_t length) {
    ModelConfig config = named_config("mamba", sparse);
    config.sparse_keys = 4;
    config.data_max_length = 12;
    config.resolve();
    return mean_keys(config, Sequences::single(length));
  };
  CHECK(mean("none", 6) == 0);
  CHECK(mean("full", 6) == doctest::Approx((1 + 2 + 3 + 4 + 5 + 6) / 6.0));
  CHECK(mean("sliding_window", 6) == doctest::Approx((1 + 2 + 3 + 4 + 4 + 4) / 6.0));
  CHECK(mean("sign_bin_lsh+key_selection", 6) == doctest::Approx((1 + 2 + 3 + 4 + 4 + 4) / 6.0));
  // Two keys each; dilation 6: positions 5, 11, 17.
  CHECK(mean("dilated", 7) == doctest::Approx((0 + 0 + 1 + 1 + 1 + 2 + 2) / 7.0));
  CHECK(mean("sliding_window+dilated", 7) == doctest::Approx((1 + 2 + 2 + 2 + 2 + 3 + 3) / 7.0));
  CHECK(mean("full", 0) == 0);
}

TEST_CASE("every architecture is counted, and removing work removes some") {
  const MeanBatch batch;
  for (const std::string& base : base_arch_names()) {
    for (const std::string& sparse : sparse_arch_names()) {
      if (base == "transformer" && sparse != "none") continue;
      INFO(base << " + " << sparse);
      const Work full = batch.work(base.c_str(), sparse.c_str(), false);
      const Work removed = batch.work(base.c_str(), sparse.c_str(), true);
      CHECK(full.products > 1e9);
      CHECK(full.other > 1e9);
      CHECK(removed.products < .85 * full.products);
      CHECK(removed.other < full.other);
      CHECK(removed.exps == full.exps);
      CHECK(full.exps >= batch.work(base.c_str(), "none", false).exps);
    }
  }
}

TEST_CASE("Samba's work by layer") {
  ModelConfig config = named_config("samba", "none");
  config.resolve();
  const Sequences one = Sequences::single(100);
  const auto products = [&](int layer) {
    double sum = 0;
    for (const OpWork& op : layer_work(config, layer, one)) sum += op.forward.products;
    return sum;
  };
  const double mlp = 2 * 3 * 32 * 256;
  CHECK(products(0) == 2 * 32 * 128 + 2 * 64 * 40 + 2 * 8 * 64 + 2 * 64 * 32 + mlp);
  CHECK(products(1) == 2 * 4 * 32 * 32 + mlp);
  CHECK(products(3) == products(1));
}
