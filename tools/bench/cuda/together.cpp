// hax bench together on a device: several runs in one process, beside one at a time.
#include <barrier>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/cuda/lane.h"
#include "engine/memory.h"
#include "tools/bench/cuda/measure.h"
#include "tools/bench/cuda/parts.h"

namespace hax::bench {
namespace {

// Runs of one architecture, each in a thread and a lane of its own, that take steps when told to.
class Runs {
 public:
  Runs(const ModelConfig& config, const TrainingSetting& setting, int count) : gate_(count + 1) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this, &config, &setting, i] { work(config, setting, i); });
    }
    gate_.arrive_and_wait();  // ready
    if (error_) {
      end();
      std::rethrow_exception(error_);
    }
  }
  ~Runs() { end(); }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;

  std::int64_t cycle() const { return cycle_; }
  double bytes() const { return bytes_; }

  // Seconds until all of the first `active` runs took so many steps.
  double seconds(int active, std::int64_t steps) {
    active_ = active;
    steps_ = steps;
    const double start = seconds_now();
    gate_.arrive_and_wait();
    gate_.arrive_and_wait();
    const double taken = seconds_now() - start;
    if (error_) std::rethrow_exception(error_);
    return taken;
  }

 private:
  void work(const ModelConfig& config, const TrainingSetting& setting, int index) {
    try {
      const cuda::Lane lane;
      Training training(config, setting);
      // A graph is made when its lengths come for the second time.
      for (std::int64_t i = 0; i < 2 * training.cycle(); ++i) training.next_step();
      if (index == 0) {
        cycle_ = training.cycle();
        bytes_ = static_cast<double>(memory_stats(kCuda).peak_bytes_in_use);
      }
      obey(index, [&] {
        for (std::int64_t i = 0; i < steps_; ++i) training.next_step();
      });
    } catch (...) {
      {
        const std::scoped_lock lock(mutex_);
        error_ = std::current_exception();
      }
      obey(index, [] {});
    }
  }

  // Errors of a step end the run's part in it, but not the rounds that others wait for.
  void obey(int index, const std::function<void()>& steps) {
    gate_.arrive_and_wait();  // ready
    while (true) {
      gate_.arrive_and_wait();  // told
      if (steps_ < 0) return;
      try {
        if (index < active_) steps();
      } catch (...) {
        const std::scoped_lock lock(mutex_);
        error_ = std::current_exception();
      }
      gate_.arrive_and_wait();  // done
    }
  }

  void end() {
    if (threads_.empty()) return;
    steps_ = -1;
    gate_.arrive_and_wait();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  std::barrier<> gate_;
  std::mutex mutex_;
  std::exception_ptr error_;
  int active_ = 0;
  std::int64_t steps_ = 0, cycle_ = 1;
  double bytes_ = 0;
  std::vector<std::thread> threads_;
};

void add_together(Bench& bench, const std::string& arch) {
  const int count = bench.emulated ? 2 : 9;
  const ModelConfig config = resolved_arch(arch);
  const TrainingSetting setting = bench.training();
  Runs runs(config, setting, count);
  const std::int64_t steps = (bench.quick ? 1 : 3) * runs.cycle();
  std::vector<double> alone, together;
  for (int round = 0; round < (bench.quick ? 2 : 5); ++round) {  // in turn
    alone.push_back(runs.seconds(1, steps) / static_cast<double>(steps));
    together.push_back(runs.seconds(count, steps) / static_cast<double>(steps * count));
  }
  const Timing timing(together);
  Row row{.name = fmt::format("{}, {} runs together", arch, count)};
  row.time(timing);
  row.alone_s = Timing(alone).median;
  row.speedup = *row.alone_s / timing.median;
  row.bytes = runs.bytes() * count;
  bench.report.add(row);
}

}  // namespace

void bench_device_together(Bench& bench) {
  bench.report.section(
      "together", "Runs that share the GPU",
      "Seconds a step and run: of nine runs of one architecture in one process (hax sweep "
      "--together 9),\nbeside one of them while the others wait. Bytes: the most that tensors of "
      "all runs held before their graphs.",
      {"median_s", "alone_s", "speedup", "bytes"});
  for (const std::string& arch : bench.archs.empty()
                                     ? std::vector<std::string>{"mamba+sign_bin_lsh+key_selection",
                                                                "mamba2+sign_bin_lsh+key_selection"}
                                     : bench.archs) {
    row_or_reason(bench, arch, [&] { add_together(bench, arch); });
    release_cached_memory(kCuda);
  }
}

}  // namespace hax::bench
