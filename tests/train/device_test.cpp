// Training, evaluation and what surrounds them on CUDA.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "data/device_batch.h"
#include "tests/support/command.h"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"
#include "tests/support/models.h"
#include "train/device_step.h"
#include "train/fitting.h"
#include "train/fixture.h"
#include "train/pack_step.h"

using namespace hax;
using namespace hax::test;

namespace {

std::vector<std::string> train_flags(const TempFolder& folder, const std::string& run,
                                     const char* step) {
  ModelConfig config = small_config("sign_bin_lsh+key_selection");
  config.resolve();
  write_text(folder / "small.json", to_json(config));
  return {"train",
          "--device",
          "cuda",
          "--config",
          folder / "small.json",
          "--save_dir",
          folder / run,
          "--contexts",
          "2:3",
          "--keys",
          "2:3",
          "--values",
          "8",
          "--bsz",
          "3",
          "--grad_acc",
          "2",
          "--step",
          step,
          "--valid_step",
          "10",
          "--log_step",
          "1",
          "--lr",
          "3e-3",
          "--warmup_step",
          "5",
          "--valid_samples",
          "6",
          "--test_samples",
          "6",
          "--clip_norm",
          "0.5",
          "--seed",
          "5"};
}

// The lines of a run's metrics without the numbers that other arithmetic rounds differently.
std::vector<double> numbers_of(const std::string& metrics, const std::string& key) {
  std::vector<double> numbers;
  for (std::size_t at = metrics.find(key); at != std::string::npos;
       at = metrics.find(key, at + 1)) {
    numbers.push_back(std::stod(metrics.substr(at + key.size())));
  }
  return numbers;
}

}  // namespace

TEST_CASE("device cuda is refused in one line where there is none") {
  if (cuda_is_here()) return;
  const TempFolder folder;
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"train", "--save_dir", folder / "run"},
        std::vector<std::string>{"verify", fixture_path(fixture_names().front())}}) {
    std::vector<std::string> flags = command;
    flags.insert(flags.end(), {"--device", "cuda"});
    const CommandResult result = run_hax(flags);
    INFO(result.err);
    CHECK(result.code == 2);
    CHECK(result.err.find("--device cuda: ") != std::string::npos);
    CHECK(result.err.find("use --device cpu") != std::string::npos);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  }
}

TEST_CASE("a batch comes to CUDA in one copy") {
  if (!cuda_is_here()) return;
  const TestModel m(small_config("none"), DType::float32, 2);
  const Batch batch = m.batch(5);
  PinnedMemory memory(pinned_count(batch));
  write_numbers(batch, memory.numbers());
  Tensor numbers = Tensor::empty({pinned_count(batch)}, DType::int32, kCuda);
  memory.send(numbers);
  const Batch there = batch_in(batch, numbers);
  CHECK(same_bits(there.tokens.to(kCpu), batch.tokens));
  CHECK(same_bits(there.target_rows.to(kCpu), batch.target_rows));
  CHECK(same_bits(there.target_labels.to(kCpu), batch.target_labels));
  const Batch again = m.batch(5);
  CHECK(same_bits(there.sequences.offsets_on(kCuda).to(kCpu),
                  again.sequences.offsets_on(kCuda).to(kCpu)));
  CHECK(same_bits(there.target_samples.offsets_on(kCuda).to(kCpu),
                  again.target_samples.offsets_on(kCuda).to(kCpu)));
}

TEST_CASE("prefetched steps are samples and draws of the run, in order") {
  if (!cuda_is_here()) return;
  TrainOptions options;
  options.contexts = options.keys = "2:3";
  const std::unique_ptr<Task> task = open_task(options);
  ModelConfig config = small_config("sign_bin_lsh+key_selection");
  config.resolve();
  const std::vector<Draw> draws = draws_of(config);
  REQUIRE(draws.size() == 4);
  Prefetcher prefetcher(*task, draws, {.bsz = 3, .packs = 2, .first = 7, .seed = 11});
  for (std::int64_t step = 7; step < 14; ++step) {
    Prefetcher::Step& made = prefetcher.take();
    StepInputs inputs(made.packs, draws);
    made.words->send(inputs.words());
    prefetcher.give_back(made);
    REQUIRE(inputs.packs().size() == 2);
    const DrawnInputs random(11, static_cast<std::uint32_t>(step + 1));
    for (std::int64_t p = 0; p < 2; ++p) {
      const Batch expected = task->train_batch((2 * step + p) * 3, 3);
      const Batch& pack = inputs.packs()[static_cast<std::size_t>(p)];
      CHECK(same_bits(pack.tokens.to(kCpu), expected.tokens));
      CHECK(same_bits(pack.target_labels.to(kCpu), expected.target_labels));
      for (const Draw& draw : draws) {
        if (draw.kind == Draw::Kind::hash) {
          const auto matrix_of = [&](const RandomInputs& from) {
            return from.hash(draw.layer, draw.state, draw.columns, DType::float32).to(kCpu);
          };
          CHECK(same_bits(matrix_of(inputs.random()), matrix_of(random)));
          continue;
        }
        const auto candidates_of = [&](const RandomInputs& from) {
          return from.candidates(draw.layer, expected.sequences, 3 * p, draw.keys);
        };
        const Candidates there = candidates_of(inputs.random()), here = candidates_of(random);
        CHECK(same_bits(there.positions.to(kCpu), here.positions));
        CHECK(there.groups.tokens() == here.groups.tokens());
      }
    }
    CHECK_THROWS_AS(inputs.random().hash(7, 1, 1, DType::float32), Error);
    CHECK_THROWS_AS(inputs.random().candidates(7, made.packs[0].sequences, 0, 1), Error);
  }
}

TEST_CASE("AdamW on CUDA equals the CPU, clipped or not") {
  if (!cuda_is_here()) return;
  ParamTable table;
  table.add("w", {700, 13}, Init::normal(1));
  table.add("b", {5}, Init::normal(1));
  for (const double limit : {0.0, 3.0}) {
    Parameters p(table), g(table), p_there(table, DType::float32, kCuda);
    p.initialize(3);
    p_there.initialize(3);
    AdamW here(table), there(table, {}, kCuda);
    double norm = 0;
    for (int step = 1; step <= 3; ++step) {
      g.initialize(static_cast<std::uint64_t>(100 + step));
      const Parameters g_there = g.to(kCuda);
      StepSums sums(kCuda);
      there.set_factors(step, 0.01, limit);
      there.queue_update(g_there, p_there, sums);
      norm = global_norm(g);
      CHECK(std::sqrt(sums.read().square) == doctest::Approx(norm).epsilon(1e-12));
      CHECK(global_norm(g_there) == doctest::Approx(norm).epsilon(1e-12));
      CHECK(sums.read().bad_update == 0);
      if (limit > 0) clip(g, norm, limit);
      here.update(step, 0.01, g, p);
    }
    CHECK(relative_error(p_there.flat().to(kCpu), p.flat()) <= 1e-6);
    CHECK(relative_error(there.second_moments().flat().to(kCpu), here.second_moments().flat()) <=
          1e-6);
  }
}

TEST_CASE("on CUDA nothing is updated by what is not finite, and a bad update is told") {
  if (!cuda_is_here()) return;
  ParamTable table;
  table.add("w", {300}, Init::normal(1));
  Parameters p(table, DType::float32, kCuda);
  p.initialize(3);
  const Tensor before = p.flat().to(kCpu).clone();
  AdamW optimizer(table, {}, kCuda);
  Parameters bad(table);
  bad.initialize(1);
  bad.flat().data<float>()[77] = std::nanf("");
  StepSums sums(kCuda);
  optimizer.set_factors(1, 0.01, 0);
  optimizer.queue_update(bad.to(kCuda), p, sums);
  CHECK(!std::isfinite(sums.read().square));
  CHECK(same_bits(p.flat().to(kCpu), before));

  bad.initialize(1);
  StepSums lost(kCuda);
  lost.add(Tensor::full({}, std::nanf("")).to(kCuda), {},
           Tensor::full({1}, 1, DType::float64).to(kCuda));
  optimizer.queue_update(bad.to(kCuda), p, lost);
  CHECK(same_bits(p.flat().to(kCpu), before));

  StepSums overflow(kCuda);
  optimizer.set_factors(1, 1e39, 0);
  optimizer.queue_update(bad.to(kCuda), p, overflow);
  CHECK(overflow.read().bad_update == 1);
}

TEST_CASE("a step on CUDA equals the CPU's, whole, in packs and evaluated") {
  if (!cuda_is_here()) return;
  for (const NamedConfig& named : all_small_configs()) {
    INFO(named.name);
    const TestModel m(named.config, DType::float32, 2);
    const Batch batch = m.batch(4);
    const DrawnInputs random(4, 5);
    Parameters here(m.model.parameters()), there(m.model.parameters(), DType::float32, kCuda);
    const Parameters moved = m.parameters.to(kCuda);
    const StepResult cpu = step_gradients(m.model, m.parameters, batch, random, {}, here);
    const StepResult cuda = step_gradients(m.model, moved, batch, random, {}, there);
    const Tensor whole = there.flat().to(kCpu).clone();
    CHECK(relative_error(whole, here.flat()) <= 1e-4);
    CHECK(cuda.lm_loss == doctest::Approx(cpu.lm_loss).epsilon(1e-5));
    CHECK(cuda.gate_loss == doctest::Approx(cpu.gate_loss).epsilon(1e-5));
    CHECK(cuda.accuracy == doctest::Approx(cpu.accuracy).epsilon(1e-12));
    CHECK(cuda.samples == cpu.samples);
    CHECK(cuda.tokens == cpu.tokens);
    CHECK(cuda.targets == cpu.targets);
    step_gradients(m.model, moved, batch, random, {}, there);
    CHECK(same_bits(there.flat().to(kCpu), whole));

    const PackContext context{m.model, Leaves(moved, there), random, divisors_of(batch), 0.1, true};
    StepSums sums(kCuda);
    fill(there.flat(), 0);
    queue_pack(context, batch.slice(0, 3), 0, sums);
    queue_pack(context, batch.slice(3, 4), 3, sums);
    CHECK(relative_error(there.flat().to(kCpu), whole) <= 1e-4);
    CHECK(sums.read().lm_loss == doctest::Approx(cuda.lm_loss).epsilon(1e-5));

    std::vector<double> hits, hits_there;
    evaluate_batch(m.model, m.parameters, batch, random, 3, &hits);
    const StepResult evaluated = evaluate_batch(m.model, moved, batch, random, 3, &hits_there);
    CHECK(hits_there == hits);
    CHECK(evaluated.lm_loss == doctest::Approx(cpu.lm_loss).epsilon(1e-5));
  }
}

TEST_CASE("fixtures on CUDA: losses, sets and every gradient") {
  if (!cuda_is_here()) return;
  for (const std::string& name : fixture_names()) {
    INFO(name);
    const FixtureReport report = check_fixture(fixture_path(name), DType::float32, kCuda);
    CHECK(worst_of(report.all_rows).error <= 1e-4);
    CHECK(worst_of(report.as_training).error <= 1e-4);
  }
}

TEST_CASE("a run on CUDA: resumed bit for bit, evaluated again, close to the CPU's") {
  if (!cuda_is_here()) return;
  const TempFolder folder;
  const CommandResult whole = run_hax(train_flags(folder, "whole", "30"));
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  REQUIRE(run_hax(train_flags(folder, "part", "20")).code == 0);
  // As if it had been stopped: the end of a shorter run is forgotten.
  const CommandResult resumed = run_hax({"train", "--resume", folder / "part", "--step", "30"});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  for (const char* file : {"last/model.safetensors", "last/optimizer.safetensors",
                           "last/state.json", "best/model.safetensors"}) {
    INFO(file);
    CHECK(read_text(folder / (std::string("part/") + file)) ==
          read_text(folder / (std::string("whole/") + file)));
  }

  const std::string metrics = read_text(folder / "whole/metrics.jsonl");
  const double accuracy = numbers_of(metrics, "\"test_accuracy\":").at(0);
  const CommandResult again =
      run_hax({"eval", "--device", "cuda", "--checkpoint", folder / "whole", "--json"});
  INFO(again.err);
  REQUIRE(again.code == 0);
  CHECK(numbers_of(again.out, "\"accuracy\": ").at(0) == accuracy);

  std::vector<std::string> flags = train_flags(folder, "cpu", "30");
  *std::find(flags.begin(), flags.end(), "cuda") = "cpu";
  REQUIRE(run_hax(flags).code == 0);
  const std::string on_cpu = read_text(folder / "cpu/metrics.jsonl");
  const std::vector<double> losses = numbers_of(metrics, "\"loss\":"),
                            expected = numbers_of(on_cpu, "\"loss\":");
  REQUIRE(losses.size() == 30);
  for (std::size_t i = 0; i < 30; ++i) {
    INFO(i);
    CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(1e-3));
  }
}

TEST_CASE("out of memory on CUDA: what asked, for how much, and what would fit") {
  if (!cuda_is_emulated()) return;
  const TempFolder folder;
  ::setenv("HAX_EMULATE_MEMORY", "3000000", 1);
  std::vector<std::string> flags = train_flags(folder, "run", "30");
  *(std::find(flags.begin(), flags.end(), "--bsz") + 1) = "60";
  const CommandResult result = run_hax(flags);
  ::unsetenv("HAX_EMULATE_MEMORY");
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("step 1: out of memory on cuda: ") != std::string::npos);
  CHECK(result.err.find(" bytes, ") != std::string::npos);
  CHECK(result.err.find(" of its 60 sequences fit at once: --bsz ") != std::string::npos);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
}

TEST_CASE("advice after running out of memory follows from what sequences need") {
  const MemoryNeeds needs{.short_tokens = 100,
                          .long_tokens = 300,
                          .short_bytes = 1500,
                          .long_bytes = 3500,
                          .mean_tokens = 200,
                          .free_bytes = 25000};
  // 10 bytes a token and 500: 22,500 usable bytes are 2,200 tokens, 11 sequences.
  CHECK(advice_on_batch(needs, 64, 1) ==
        "about 11 of its 64 sequences fit at once: --bsz 8 --grad_acc 8 makes the same step");
  CHECK(advice_on_batch(needs, 11, 2) ==
        "about 10 of its 11 sequences fit at once: --bsz 2 --grad_acc 11 makes the same step");
  CHECK(advice_on_batch(needs, 1, 4) == "not even two of its sequences fit at once");
}
