// hax bench step and hax bench scaling: whole training steps, as `hax train` does them.
#include <omp.h>

#include "data/generator.h"
#include "engine/parallel.h"
#include "tools/bench/bench.h"
#include "tools/bench/bookkeeping.h"
#include "tools/bench/memory_use.h"
#include "tools/bench/step_cycle.h"
#include "tools/bench/training.h"

namespace hax::bench {
namespace {

// A new batch is drawn for every step, as in training; equal index, equal samples.
CycleTiming time_cycle(Training& training, const std::vector<std::int64_t>& numbers,
                       const Effort& effort) {
  std::vector<std::vector<double>> seconds(numbers.size());
  training.step(training.batch(0));
  const double start = seconds_now();
  for (std::size_t round = 0; round < effort.runs || seconds_now() - start < effort.seconds;
       ++round) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      seconds[i].push_back(seconds_of([&] { training.step(training.batch(numbers[i])); }));
    }
  }
  return CycleTiming(seconds);
}

// As many ops that compute nothing as the step has, shared among its threads.
void add_bookkeeping(Bench& bench, const std::string& arch, const Training& training,
                     double step_seconds) {
  const Bookkeeping graph = measure_bookkeeping(training, bench.effort(.3, 5));
  const double ops_a_thread =
      graph.ops * static_cast<double>(bench.batch_size) / static_cast<double>(bench.threads);
  Row row{.name = arch + ", graph bookkeeping", .label = "  graph bookkeeping"};
  row.median_s = graph.op.median * ops_a_thread;
  row.fastest_s = graph.op.fastest * ops_a_thread;
  row.runs = static_cast<double>(graph.op.runs);
  row.threads = bench.threads;
  row.ops = graph.ops;
  row.ns_per_op = 1e9 * graph.op.median;
  row.share = *row.median_s / step_seconds;
  row.note = fmt::format("{:.0f} ops a sequence, {:.0f} ns each: {:.2f} % of the step", *row.ops,
                         *row.ns_per_op, 100 * *row.share);
  bench.report.add(row);
}

double bench_arch(Bench& bench, const std::string& arch) {
  const ModelConfig config = resolved_arch(arch);
  const MemoryWatch memory;
  Training training(config, bench.training());
  const std::vector<std::int64_t> numbers = batch_numbers(training, bench.quick);
  Effort effort = bench.effort(4);
  if (bench.quick) effort.runs = 1;
  const CycleTiming packed = time_cycle(training, numbers, effort);
  const MemoryUse use = memory.read();
  std::vector<Batch> batches;
  for (const std::int64_t number : numbers) batches.push_back(training.batch(number));
  Row row{.name = arch};
  packed.into(row);
  row.per_token(mean_tokens(batches))
      .over(floor_seconds(mean_work(config, batches, true), bench.all.arithmetic));
  row.floor_full_s = floor_seconds(mean_work(config, batches, false), bench.all.arithmetic);
  row.bytes = use.pool_bytes;
  for (const Batch& batch : batches) {
    // Nothing (a model whose memory is not predicted) is less than any number.
    row.predicted_bytes =
        std::max(row.predicted_bytes, training.predicted_bytes(batch, bench.threads));
  }
  row.resident_bytes = use.resident_bytes;
  row.threads = bench.threads;
  row.parameters = static_cast<double>(training.model().parameters().count());
  // The steps before have warmed everything up.
  const Effort few{.seconds = 0, .runs = bench.quick ? std::size_t{1} : 3, .warm_up = !bench.quick};
  row.hours = run_hours(packed.median, training, few);
  bench.report.add(row);

  // Padded beside packed, in turn.
  const Batch& one = batches[batches.size() / 2];
  const Batch padded = filled_up(one);
  const Pair pair = measure_pair(
      few, [&] { training.step(padded); }, [&] { training.step(one); });
  Row filled{.name = arch + ", padded", .label = "  padded to 1057"};
  filled.time(pair.a).over(floor_seconds(
      step_work(config, padded.sequences, padded.target_rows.numel(), true), bench.all.arithmetic));
  filled.per_token(static_cast<double>(one.sequences.tokens()));  // real tokens
  filled.speedup = pair.ratio;
  filled.threads = bench.threads;
  bench.report.add(filled);
  add_bookkeeping(bench, arch, training, packed.median);
  return *row.hours;
}

void bench_generator(Bench& bench) {
  const Training training(resolved_arch("mamba"), bench.training());
  std::int64_t index = 0, cycle = training.cycle(), tokens = 0;
  for (std::int64_t i = 0; i < cycle; ++i) tokens += training.batch(i).sequences.tokens();
  Row row{.name = "drawing the batch (within each step)"};
  row.time(measure(bench.effort(.3, 9), [&] { training.batch(index++ % cycle); }));
  row.per_token(static_cast<double>(tokens) / static_cast<double>(cycle));
  row.threads = 1;
  bench.report.add(row);

  // What `hax data generate` does before it writes: samples of the train split, slot after slot.
  constexpr std::int64_t kBlocks = 16, kSamples = 1440;  // a block is ten rounds of all sizes
  Row samples{.name = "generate samples"};
  samples.time(measure(bench.effort(.5, 5), [&] {
    parallel_for(kBlocks, [&](std::int64_t block) {
      SampleGenerator generator(JointRecallTask{}, 0);
      std::vector<std::int32_t> drawn;
      for (std::int64_t slot = block * kSamples; slot < (block + 1) * kSamples; ++slot) {
        generator.start(static_cast<std::uint64_t>(slot));
        generator.draw(Split::train, drawn);
      }
    });
  }));
  samples.rate = static_cast<double>(kBlocks * kSamples) / *samples.median_s;
  samples.unit = "samples/s";
  samples.threads = bench.threads;
  samples.note =
      fmt::format("{} samples/s on {} threads", count_text(*samples.rate), bench.threads);
  bench.report.add(samples);
}

}  // namespace

void bench_step(Bench& bench) {
  bench.report.section(
      "step",
      fmt::format("Training steps of {} sequences, 463 tokens each on average", bench.batch_size),
      "Drawing the batch, forward, backward, AdamW. Floor: the arithmetic that is left after what "
      "need not\nbe done. Padded: its time on one batch, tokens/s of real tokens; speed-up: padded "
      "/ packed. Hours:\n400,000 steps and 800 validations on 1,440 samples.",
      {"median_s", "tokens_per_s", "floor_s", "ratio", "bytes", "predicted_bytes", "speedup",
       "hours"});
  bench_generator(bench);
  const std::vector<std::string> archs = !bench.archs.empty() ? bench.archs
                                         : bench.quick        ? main_archs()
                                                              : paper_archs();
  double hours = 0;
  for (const std::string& arch : archs) hours += bench_arch(bench, arch);
  if (archs == paper_archs() && bench.batch_size == 64) bench.report.add(table_row(archs, hours));
}

void bench_scaling(Bench& bench) {
  bench.report.section("scaling", "The same step on one thread and on all, in turn",
                       "Speed-up: median over the pairs.",
                       {"threads", "median_s", "fastest_s", "runs", "speedup"});
  if (bench.threads == 1) {
    bench.report.add({.name = "scaling", .skipped = "there is one thread only"});
    return;
  }
  std::vector<std::string> archs = bench.archs.empty() ? main_archs() : bench.archs;
  if (bench.quick && bench.archs.empty()) archs.resize(1);
  for (const std::string& arch : archs) {
    Training training(resolved_arch(arch), bench.training());
    const Batch batch = training.batch(3);
    const auto step_on = [&](int threads) {
      return [&, threads] {
        omp_set_num_threads(threads);
        training.step(batch);
      };
    };
    const Pair pair = measure_pair(bench.effort(4, 5), step_on(1), step_on(bench.threads));
    const auto add = [&](int threads, const Timing& timing, std::optional<double> speedup) {
      Row row{.name = fmt::format("{}, {} thread{}", arch, threads, threads == 1 ? "" : "s")};
      row.time(timing).per_token(static_cast<double>(batch.sequences.tokens()));
      row.threads = threads;
      row.speedup = speedup;
      bench.report.add(row);
    };
    add(1, pair.a, std::nullopt);
    add(bench.threads, pair.b, pair.ratio);
  }
}

}  // namespace hax::bench
