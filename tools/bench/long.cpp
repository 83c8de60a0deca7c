// hax bench long: one sequence that is far longer than any of the paper's, through a whole model.
#include <sys/resource.h>

#include "tools/bench/bench.h"
#include "tools/bench/memory_use.h"
#include "tools/bench/training.h"

namespace hax::bench {
namespace {

// Random tokens; every fourth is predicted, as in joint recall.
Batch long_batch(std::int64_t length, std::int64_t vocabulary) {
  RandomStream stream({.seed = 1});
  std::vector<std::int32_t> tokens, rows, labels;
  for (std::int64_t t = 0; t < length; ++t) {
    tokens.push_back(
        static_cast<std::int32_t>(stream.below(static_cast<std::uint32_t>(vocabulary))));
    if (t % 4 != 3) continue;
    rows.push_back(static_cast<std::int32_t>(t));
    labels.push_back(tokens.back());
  }
  Batch batch;
  batch.tokens = batch.labels = Tensor::from(tokens);
  batch.sequences = Sequences::single(length);
  batch.target_rows = Tensor::from(rows);
  batch.target_labels = Tensor::from(labels);
  batch.target_samples = Sequences::single(static_cast<std::int64_t>(rows.size()));
  return batch;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void bench_lengths(Bench& bench, const std::string& arch,
                   const std::vector<std::int64_t>& lengths) {
  const ModelConfig config = resolved_arch(arch);
  std::vector<double> done, seconds;
  for (const std::int64_t length : lengths) {
    const auto tokens = static_cast<double>(length);
    Row row{.name = fmt::format("{}, L = {}", arch, length_text(length))};
    const Batch batch = long_batch(length, config.vocab_size);
    row.predicted_bytes = Training(config).predicted_bytes(batch, bench.threads);
    // A tenth more for what ops keep outside of tensors, and for the process itself.
    const double needed = 1.1 * row.predicted_bytes.value_or(0);
    const std::optional<double> there = available_memory();
    if (there && needed > *there) {
      row.skipped =
          fmt::format("needs about {}, {} are free", bytes_text(needed), bytes_text(*there));
      bench.report.add(row);
      continue;
    }
    const MemoryWatch memory;
    Training training(config);
    const double cpu = cpu_seconds(), start = seconds_now();
    row.time(measure({.seconds = 2, .runs = 1}, [&] { training.step(batch); }));
    row.cores = (cpu_seconds() - cpu) / (seconds_now() - start);
    const MemoryUse use = memory.read();
    row.per_token(tokens).over(floor_seconds(
        step_work(config, batch.sequences, batch.target_rows.numel(), true), bench.all.arithmetic));
    row.bytes = use.pool_bytes;
    row.resident_bytes = use.resident_bytes;
    row.threads = bench.threads;
    bench.report.add(row);
    done.push_back(tokens);
    seconds.push_back(*row.median_s);
  }
  if (done.size() < 2) return;
  Row slope{.name = arch + ": slope"};
  slope.slope = log_slope(done, seconds);
  bench.report.add(slope);
}

}  // namespace

void bench_long(Bench& bench) {
  bench.report.section("long", "One long sequence through a whole model, forward and backward",
                       "Random tokens, every fourth predicted, one step with its update.",
                       {"median_s", "ns_per_token", "ratio", "bytes", "predicted_bytes",
                        "resident_bytes", "cores", "slope"});
  const std::vector<std::int64_t> lengths =
      bench.quick ? std::vector<std::int64_t>{1 << 14, 1 << 16}
                  : std::vector<std::int64_t>{1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20};
  for (const std::string& arch :
       bench.archs.empty() ? std::vector{main_archs().front()} : bench.archs) {
    bench_lengths(bench, arch, lengths);
  }
}

}  // namespace hax::bench
