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
  // A graph is made when its lengths come for the second time.
  for (std::size_t i = 0; i < 2 * seconds.size(); ++i) training.next_step();
  const double start = seconds_now();
  for (std::size_t round = 0; round < effort.runs || seconds_now() - start < effort.seconds;
       ++round) {
    for (std::vector<double>& of_batch : seconds) {
      of_batch.push_back(seconds_of([&] { training.next_step(); }));
    }
  }
  return CycleTiming(seconds);
}

// Launch by launch, and how many launches that are.
void time_launched(Bench& bench, const ModelConfig& config, const Effort& effort, Row& row) {
  TrainingSetting setting = bench.training();
  setting.graphs = false;
  Training training(config, setting);
  row.launched_s = time_steps(training, effort).median;
  row.launches = launches_of([&] { training.next_step(); });
}

// Returns the hours of a run.
double add_arch(Bench& bench, const std::string& arch) {
  const ModelConfig config = resolved_arch(arch);
  Row row{.name = arch};
  const Effort effort{.seconds = bench.quick ? 0.0 : 1.0, .runs = bench.quick ? 1u : 3u};
  time_launched(bench, config, effort, row);
  release_cached_memory(kCuda);
  const MemoryWatch memory(kCuda);
  Training training(config, bench.training());
  time_steps(training, effort).into(row);
  if (const std::string& why = training.why_no_graphs(); !why.empty()) {
    row.note = "no graph of it: " + why;
  }
  row.bytes = memory.read().pool_bytes;
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
  bench.report.add(row);
  return *row.hours;
}

// Returns the hours of a run of each together; none when one could not be measured.
std::optional<double> add_archs(Bench& bench, const std::vector<std::string>& archs) {
  double hours = 0;
  bool all = true;
  for (const std::string& arch : archs) {
    all = row_or_reason(bench, arch, [&] { hours += add_arch(bench, arch); }) && all;
    release_cached_memory(kCuda);
  }
  return all ? std::optional(hours) : std::nullopt;
}

}  // namespace

void bench_device_step(Bench& bench) {
  bench.report.section(
      "step", fmt::format("Training steps of {} sequences", bench.batch_size),
      "Forward, backward, AdamW, until the host knows the loss, as replays of graphs and launch by "
      "launch;\nbatches are made meanwhile. Bytes: "
      "of a plan\nin which every op reads and writes its numbers once. Hours: 400,000 steps and "
      "800 "
      "validations on\n1,440 samples.",
      {"median_s", "launched_s", "tokens_per_s", "launches", "moved_bytes", "flops", "copy_share",
       "product_share", "ratio", "bytes", "hours"});
  if (!bench.archs.empty() || bench.quick) {
    add_archs(bench, bench.archs.empty() ? main_archs() : bench.archs);
    return;
  }
  const std::optional<double> hours = add_archs(bench, paper_archs());
  if (hours && bench.batch_size == 64) bench.report.add(table_row(paper_archs(), *hours));
  add_archs(bench, {"transformer"});
}

}  // namespace hax::bench
