#include "train/step_memory.h"

#include <doctest/doctest.h>
#include <omp.h>

#include "data/sample_source.h"
#include "engine/memory.h"
#include "models/architectures.h"
#include "tests/support/models.h"
#include "train/optimizer.h"
#include "train/step.h"
#include "train/task.h"

using namespace hax;
using namespace hax::test;

namespace {

StepSizes sizes_of(const JointRecallTask& task, std::int64_t batch, std::int64_t threads) {
  const SequenceBounds bounds = sequence_bounds(task);
  return {bounds.least, bounds.most, batch, 8, threads};
}

// A run: parameters, gradients and moments; step() takes the next batch.
struct Run {
  JointRecallTask task;
  StreamSource source;
  Model model;
  Parameters parameters, gradients;
  AdamW optimizer;
  std::int64_t number = 0;

  Run(const ModelConfig& config, const JointRecallTask& chosen)
      : task(chosen),
        source(task, 3, Split::train),
        model(config),
        parameters(model.parameters()),
        gradients(model.parameters()),
        optimizer(model.parameters()) {
    parameters.initialize(1);
  }
  void step(std::int64_t batch_size) {
    const Batch batch = read_batch(source, number * batch_size, batch_size);
    step_gradients(model, parameters, batch, DrawnInputs(1, static_cast<std::uint32_t>(number)), {},
                   gradients);
    optimizer.update(++number, 1e-3, gradients, parameters);
  }
};

ModelConfig narrow(const ModelConfig& config, std::int64_t vocabulary) {
  ModelConfig changed = config;
  changed.vocab_size = vocabulary;
  return changed;
}

// Restores the number of threads.
struct Threads {
  int before = omp_get_max_threads();
  explicit Threads(int threads) { omp_set_num_threads(threads); }
  ~Threads() { omp_set_num_threads(before); }
};

std::int64_t in_use() { return memory_stats(kCpu).bytes_in_use; }

}  // namespace

TEST_CASE("the predicted peak of a step is what the pool sees, whatever the architecture") {
  const Threads one_thread(1);
  for (const Range tables : {Range{4, 4}, Range{9, 9}, Range{16, 16}}) {
    const JointRecallTask task = make_task(2, tables, tables, 8);
    for (const NamedConfig& named : all_small_configs()) {
      INFO(named.name << ", " << tables.hi);
      const std::int64_t before = in_use();
      Run run(narrow(named.config, task.vocab_size()), task);
      const StepMemoryModel memory(run.model);
      reset_peak_memory(kCpu);
      run.step(3);
      const auto peak = static_cast<double>(memory_stats(kCpu).peak_bytes_in_use - before);
      const auto predicted = static_cast<double>(memory.predict(sizes_of(task, 3, 1)).peak());
      CHECK(predicted == doctest::Approx(peak).epsilon(.1));
    }
  }
}

TEST_CASE("the predicted peak of one long sequence, whose ops take all threads") {
  const JointRecallTask task = make_task(2, Range{64, 64}, Range{128, 128}, 8);
  for (const char* base : {"mamba", "mamba2", "samba"}) {
    INFO(base);
    const std::int64_t before = in_use();
    Run run(narrow(small_config(base, "sign_bin_lsh+key_selection"), task.vocab_size()), task);
    const StepMemoryModel memory(run.model);
    reset_peak_memory(kCpu);
    run.step(1);
    const auto peak = static_cast<double>(memory_stats(kCpu).peak_bytes_in_use - before);
    const StepMemory predicted = memory.predict(sizes_of(task, 1, omp_get_max_threads()));
    CHECK(predicted.at_once == 1);
    CHECK(static_cast<double>(predicted.peak()) == doctest::Approx(peak).epsilon(.15));
  }
}

TEST_CASE("no step on two threads needs more than predicted, and few need much less") {
  const Threads two(2);
  const JointRecallTask task = make_task(2, Range{9, 9}, Range{9, 9}, 8);
  const std::int64_t before = in_use();
  Run run(narrow(small_config("sign_bin_lsh+key_selection"), task.vocab_size()), task);
  const StepMemoryModel memory(run.model);
  reset_peak_memory(kCpu);
  for (int step = 0; step < 20; ++step) run.step(16);
  const auto peak = static_cast<double>(memory_stats(kCpu).peak_bytes_in_use - before);
  const auto predicted = static_cast<double>(memory.predict(sizes_of(task, 16, 2)).peak());
  CHECK(peak <= 1.02 * predicted);
  CHECK(peak >= .7 * predicted);
}

TEST_CASE("steps of all lengths ask the system for nothing, whatever the threads") {
  const JointRecallTask task = make_task(2, Range{2, 7}, Range{2, 9}, 8);
  for (const int threads : {1, 2, 3}) {
    const Threads some(threads);
    for (const NamedConfig& named : all_small_configs()) {
      INFO(named.name << " on " << threads);
      Run run(narrow(named.config, task.vocab_size()), task);
      release_cached_memory(kCpu);
      const StepMemoryModel memory(run.model);
      release_cached_memory(kCpu);
      memory.reserve(sizes_of(task, 8, threads));
      const std::int64_t before = memory_stats(kCpu).system_requests;
      for (int step = 0; step < 50; ++step) run.step(8);
      CHECK(memory_stats(kCpu).system_requests == before);
    }
  }
}
