// hax bench: what the machine allows, what is reached of it. docs/benchmarks.md explains each row.
#include <omp.h>

#include <fstream>

#include "engine/check.h"
#include "engine/cuda/runtime.h"
#include "models/config.h"
#include "tools/bench/bench.h"
#include "tools/bench/training.h"
#include "tools/commands.h"
#include "tools/data_flags.h"

namespace hax {
namespace {

using bench::Bench;

using bench::Part;

// The first one sets the limits and runs always.
constexpr Part kCpuParts[] = {
    {"machine", "limits of the machine (measured with every part)", bench::bench_machine, true},
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

std::span<const Part> parts_of(Device device) {
  if constexpr (kHasCuda) {
    if (!device.is_cpu()) return bench::cuda_parts();
  }
  return kCpuParts;
}

struct BenchFlags {
  std::vector<std::string> parts, archs;
  std::string device = "cpu";
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

std::vector<Part> chosen_parts(const BenchFlags& flags, Device device) {
  const std::span<const Part> all = parts_of(device);
  std::vector<std::string> names;
  for (const Part& part : all) names.emplace_back(part.name);
  for (const std::string& name : flags.parts) {
    const bool elsewhere = std::ranges::count(kCpuParts, name, &Part::name) != 0;
    check_usage(device.is_cpu() || !elsewhere || std::ranges::count(names, name) != 0,
                "part '{}' is about the CPU; with --device {} there are {}", name, name_of(device),
                fmt::join(names, ", "));
    check_usage(std::ranges::count(names, name) != 0, "unknown part '{}'{}", name,
                suggest(name, names));
  }
  std::vector<Part> chosen{all.front()};
  for (const Part& part : all.subspan(1)) {
    const bool wanted = flags.parts.empty() ? part.in_quick || !flags.quick
                                            : std::ranges::count(flags.parts, part.name) != 0;
    if (wanted) chosen.push_back(part);
  }
  return chosen;
}

// The device in words: its name, then what else there is to say.
bench::Row about(const Bench& bench) {
  bench::Row row{.name = cpu_name()};
  row.note = fmt::format("g++ {}, {} bench", __VERSION__, bench.quick ? "quick" : "full");
  row.threads = bench.threads;
  if constexpr (kHasCuda) {
    if (bench.device.is_cpu()) return row;
    const cuda::DeviceInfo& gpu = cuda::device_info();
    row.note =
        fmt::format("{} multiprocessors, compute capability {}.{}, {}; host: {}; {}",
                    gpu.multiprocessors, gpu.major, gpu.minor,
                    bench::bytes_text(static_cast<double>(gpu.memory_bytes)), row.name, row.note);
    if (bench.emulated) {
      row.note = "the host plays it, at small sizes: figures of no GPU; " + row.note;
    }
    row.name = gpu.name;
  }
  return row;
}

void run_bench(const BenchFlags& flags) {
  const Device device = parse_device(flags.device);
  const std::vector<Part> parts = chosen_parts(flags, device);
  for (const std::string& arch : flags.archs)
    bench::resolved_arch(arch);  // refused before anything runs
  if (flags.threads > 0) omp_set_num_threads(flags.threads);
  bench::Report report(flags.json);
  Bench bench{.report = report,
              .device = device,
              .quick = flags.quick,
              .threads = omp_get_max_threads(),
              .archs = flags.archs,
              .batch_size = flags.batch_size};
  if constexpr (kHasCuda) {
    if (!device.is_cpu()) {
      bench.emulated = cuda::device_info().name == "emulated";
      if (bench.emulated) bench.batch_size = std::min<std::int64_t>(bench.batch_size, 4);
      report.set_device(cuda::device_info().name);
    }
  }
  const bench::Row machine = about(bench);
  report.remark(fmt::format("{}, {} thread{}; {}{}", machine.name, bench.threads,
                            bench.threads == 1 ? "" : "s", machine.note,
                            flags.quick ? ": few runs, read with care" : ""));
  if (flags.json) {
    report.section("about", "", "", {});
    report.add(machine);
  }
  for (const Part& part : parts) {
    omp_set_num_threads(bench.threads);
    part.run(bench);
  }
  report.finish();
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto* command = app.add_subcommand("bench", "measure speed beside what the machine allows");
  auto flags = std::make_shared<BenchFlags>();
  std::string parts = "parts to run; none: all.";
  for (const Part& part : kCpuParts) parts += fmt::format("\n{}: {}", part.name, part.help);
  if constexpr (kHasCuda) {
    parts += "\nWith --device cuda:";
    for (const Part& part : bench::cuda_parts()) {
      parts += fmt::format("\n{}: {}", part.name, part.help);
    }
  }
  command->add_option("parts", flags->parts, parts)->type_name("PART");
  command->add_option("--device", flags->device, "cpu (or cuda in a build with it)")
      ->capture_default_str();
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
