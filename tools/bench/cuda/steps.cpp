// hax bench step on a device: whole training steps, as `hax train --device cuda` does them.
#include "engine/cuda/runtime.h"
#include "engine/memory.h"
#include "tools/bench/cuda/measure.h"
#include "tools/bench/cuda/parts.h"
#include "tools/bench/memory_use.h"
#include "tools/bench/step_cycle.h"

namespace hax::bench {
namespace {

// Whole cycles of batches, by the host's clock: a step ends when the host knows its loss.
CycleTiming time_steps(Training& training, const Effort& effort) {
  std::vector<std::vector<double>> seconds(static_cast<std::size_t>(training.cycle()));
  for (std::size_t i = 0; i < seconds.size(); ++i) training.next_step();
  const double start = seconds_now();
  for (std::size_t round = 0; round < effort.runs || seconds_now() - start < effort.seconds;
       ++round) {
    for (std::vector<double>& of_batch : seconds) {
      of_batch.push_back(seconds_of([&] { training.next_step(); }));
    }
  }
  return CycleTiming(seconds);
}

void add_arch(Bench& bench, const std::string& arch, double& hours) {
  const ModelConfig config = resolved_arch(arch);
  const MemoryWatch memory(kCuda);
  Training training(config, bench.training());
  Row row{.name = arch};
  time_steps(training, {.seconds = bench.quick ? 0.0 : 2.0, .runs = bench.quick ? 1u : 5u})
      .into(row);
  row.bytes = memory.read().pool_bytes;
  row.launches = launches_of([&] { training.next_step(); });
  std::vector<Batch> batches;
  for (const std::int64_t number : batch_numbers(training, false)) {
    batches.push_back(training.batch(number));
  }
  const Work work = mean_work(config, batches, true);
  const Limits& limits = bench.one;
  row.per_token(mean_tokens(batches)).over(op_floor_seconds(work, limits));
  row.floor_full_s = op_floor_seconds(mean_work(config, batches, false), limits);
  row.counted(work_bytes(work), work.products + work.other, limits.memory_bytes,
              limits.arithmetic.products);
  row.parameters = static_cast<double>(training.model().parameters().count());
  row.hours =
      run_hours(*row.median_s, training, {.seconds = 0, .runs = bench.quick ? std::size_t{1} : 3});
  hours += *row.hours;
  bench.report.add(row);
}

}  // namespace

void bench_device_step(Bench& bench) {
  bench.report.section(
      "step", fmt::format("Training steps of {} sequences", bench.batch_size),
      "Forward, backward, AdamW, until the host knows the loss; batches are made meanwhile. Bytes: "
      "of a plan\nin which every op reads and writes its numbers once. Hours: 400,000 steps and "
      "800 "
      "validations on\n1,440 samples.",
      {"median_s", "tokens_per_s", "launches", "moved_bytes", "flops", "copy_share",
       "product_share", "ratio", "bytes", "hours"});
  std::vector<std::string> archs = paper_archs();
  archs.emplace_back("transformer");
  if (!bench.archs.empty()) {
    archs = bench.archs;
  } else if (bench.quick) {
    archs = main_archs();
  }
  double hours = 0;
  for (const std::string& arch : archs) {
    row_or_reason(bench, arch, [&] { add_arch(bench, arch, hours); });
    release_cached_memory(kCuda);
  }
}

}  // namespace hax::bench
