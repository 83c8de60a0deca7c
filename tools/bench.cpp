// hax bench: what the machine allows, what is reached of it. docs/benchmarks.md explains each row.
#include <omp.h>

#include <fstream>

#include "engine/check.h"
#include "models/config.h"
#include "tools/bench/bench.h"
#include "tools/bench/training.h"
#include "tools/commands.h"
#include "tools/data_flags.h"

namespace hax {
namespace {

using bench::Bench;

struct Part {
  const char* name;
  const char* help;
  void (*run)(Bench&);
  bool in_quick;  ///< part of `hax bench --quick` when no part is named
};

constexpr Part kParts[] = {
    {"machine", "limits of the machine (measured with every part)", nullptr, true},
    {"ops", "each op forward and backward, beside its floor and float64", bench::bench_ops, true},
    {"index", "which keys a query sees: building the index", bench::bench_index, true},
    {"attention", "sparse attention from 463 to 1 M tokens, dense beside it",
     bench::bench_attention, true},
    {"step", "training steps, packed and padded", bench::bench_step, true},
    {"peer", "the same steps in PyTorch, where it is installed", bench::bench_peer, false},
    {"scaling", "training steps on one thread and on all", bench::bench_scaling, true},
    {"long", "forward and backward of a whole model on one long sequence", bench::bench_long,
     false},
};

struct BenchFlags {
  std::vector<std::string> parts, archs;
  bool quick = false, json = false;
  int threads = 0;
  std::int64_t batch_size = 64;
};

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::vector<const Part*> chosen_parts(const BenchFlags& flags) {
  std::vector<std::string> names;
  for (const Part& part : kParts) names.emplace_back(part.name);
  for (const std::string& name : flags.parts) {
    check_usage(std::ranges::count(names, name) != 0, "unknown part '{}'{}", name,
                suggest(name, names));
  }
  std::vector<const Part*> chosen;
  for (const Part& part : kParts) {
    const bool wanted = flags.parts.empty() ? part.in_quick || !flags.quick
                                            : std::ranges::count(flags.parts, part.name) != 0;
    if (wanted) chosen.push_back(&part);
  }
  return chosen;
}

void run_bench(const BenchFlags& flags) {
  const std::vector<const Part*> parts = chosen_parts(flags);
  for (const std::string& arch : flags.archs)
    bench::resolved_arch(arch);  // refused before anything runs
  if (flags.threads > 0) omp_set_num_threads(flags.threads);
  bench::Report report(flags.json);
  Bench bench{.report = report,
              .quick = flags.quick,
              .threads = omp_get_max_threads(),
              .archs = flags.archs,
              .batch_size = flags.batch_size};
  bench::Row machine{
      .name = cpu_name(),
      .note = fmt::format("g++ {}, {} bench", __VERSION__, flags.quick ? "quick" : "full")};
  machine.threads = bench.threads;
  report.remark(fmt::format("{}, {} thread{}, g++ {}{}", machine.name, bench.threads,
                            bench.threads == 1 ? "" : "s", __VERSION__,
                            flags.quick ? "; quick: few runs, read with care" : ""));
  if (flags.json) {
    report.section("about", "", "", {});
    report.add(machine);
  }
  bench_machine(bench);
  for (const Part* part : parts) {
    omp_set_num_threads(bench.threads);
    if (part->run != nullptr) part->run(bench);
  }
  report.finish();
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto* command = app.add_subcommand("bench", "measure speed beside what the machine allows");
  auto flags = std::make_shared<BenchFlags>();
  std::string parts = "parts to run; none: all.";
  for (const Part& part : kParts) parts += fmt::format("\n{}: {}", part.name, part.help);
  command->add_option("parts", flags->parts, parts)->type_name("PART");
  command->add_flag("--quick", flags->quick, "under a minute: fewer rows, lengths and runs");
  command->add_flag("--json", flags->json, "print an array of rows");
  add_number<int>(*command, "--threads", flags->threads, "threads; 0: one a core", 0, 1024);
  add_number<std::int64_t>(*command, "--bsz", flags->batch_size, "sequences of a training step", 1,
                           4096);
  command
      ->add_option("--arch", flags->archs,
                   "architectures of step, peer, scaling and long: BASE or BASE+SPARSE")
      ->type_name("ARCH")
      ->allow_extra_args(false);
  command->callback([flags] { run_bench(*flags); });
}

}  // namespace hax
