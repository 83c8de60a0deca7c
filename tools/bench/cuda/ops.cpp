// hax bench ops and hax bench large on a device.
#include "engine/memory.h"
#include "models/model.h"
#include "tools/bench/cuda/measure.h"
#include "tools/bench/cuda/op_rows.h"
#include "tools/bench/cuda/parts.h"
#include "train/optimizer.h"

namespace hax::bench {
namespace {

const std::vector<std::string>& columns() {
  static const std::vector<std::string> names{"median_s",      "launched_s", "launches",
                                              "moved_bytes",   "flops",      "copy_share",
                                              "product_share", "ratio",      "bytes"};
  return names;
}

// One flat buffer, all parameters of Mamba + HAX: reads four numbers, writes three.
void bench_optimizer(Bench& bench) {
  const Model model(resolved_arch("mamba+sign_bin_lsh+key_selection"));
  Parameters parameters(model.parameters(), DType::float32, kCuda),
      gradients(model.parameters(), DType::float32, kCuda);
  parameters.initialize(1);
  gradients.initialize(2);
  AdamW adam(model.parameters(), AdamWOptions{}, kCuda);
  StepSums sums(kCuda);
  adam.set_factors(1, 1e-6, 0);
  const DeviceWork update = [&] { adam.queue_update(gradients, parameters, sums); };
  const auto count = static_cast<double>(model.parameters().count());
  const Work work{.other = 15 * count, .numbers = 7 * count};
  const Limits& limits = bench.one;
  Row row{.name = "AdamW, all of Mamba + HAX"};
  const WorkTimes times = time_work(bench.effort(.3, 7), update, {});
  row.launched_s = times.launched.forward.median;
  row.time(times.replayed ? times.replayed->forward : times.launched.forward)
      .per_token(count)
      .over(op_floor_seconds(work, limits));
  row.counted(work_bytes(work), work.other, limits.memory_bytes, limits.arithmetic.products);
  row.launches = launches_of(update);
  bench.report.add(row);
}

// So many equal sequences.
Sequences equal_sequences(std::int64_t count, std::int64_t length) {
  return Sequences::of_lengths(std::vector<std::int64_t>(static_cast<std::size_t>(count), length));
}

}  // namespace

void bench_device_ops(Bench& bench) {
  const Batch batch = Training(resolved_arch("mamba"), bench.training()).batch(3);
  bench.report.section(
      "ops",
      fmt::format("Ops on a pack of {} sequences, {} tokens", batch.count(),
                  batch.sequences.tokens()),
      "Bytes: every input read once, every result written once. Shares: of the copy's rate and of "
      "float32\nproducts'. Memory: above the inputs.",
      columns());
  const OpSetting setting{batch.sequences, batch.target_rows.numel(), 0, kCuda};
  for (const OpCase& op_case : op_cases()) add_op_rows(bench, op_case, setting);
  for (const OpCase& op_case : selector_cases()) add_op_rows(bench, op_case, setting);
  row_or_reason(bench, "AdamW, all of Mamba + HAX", [&] { bench_optimizer(bench); });
}

void bench_device_large(Bench& bench) {
  // 1 GB a table (a quarter with --quick): no cache holds any of it.
  const bool tiny = bench.emulated;
  const std::int64_t width = tiny ? 64 : 1024, length = tiny ? 8 : 2048,
                     sequences = tiny          ? 2
                                 : bench.quick ? 32
                                               : 128;
  constexpr double kMovingTarget = .6, kScanTarget = 1 / 1.5;
  bench.report.section(
      "large", fmt::format("Ops that only move numbers: {} rows of {}", sequences * length, width),
      "Target: at least 60 % of the copy's rate; the scan at most 1.5 times its bytes at that "
      "rate.",
      {"median_s", "launched_s", "launches", "moved_bytes", "flops", "copy_share", "target_share",
       "bytes"});
  OpSetting setting{equal_sequences(sequences, length), 0, 0, kCuda};
  for (const OpCase& op_case : moving_cases(width)) {
    add_op_rows(bench, op_case, setting, kMovingTarget);
  }
  setting.targets = tiny ? 16 : 4096;
  const std::int64_t classes = tiny ? 100 : 50280;
  add_op_rows(bench, loss_case(fmt::format("cross_entropy {}", classes), classes), setting,
              kMovingTarget);
  // Mamba-130M's: 8 sequences of 2,048 tokens.
  setting.sequences = equal_sequences(tiny ? 2 : 8, length);
  const std::int64_t channels = tiny ? 64 : 1536;
  add_op_rows(bench, scan_case(fmt::format("selective_scan {}, 16 states", channels), channels, 16),
              setting, kScanTarget);
}

}  // namespace hax::bench
