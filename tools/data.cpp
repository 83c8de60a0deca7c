// hax data: making, reading, checking and converting datasets.
#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <memory>

#include "data/dataset.h"
#include "data/text_format.h"
#include "engine/check.h"
#include "tools/commands.h"
#include "tools/data_flags.h"
#include "tools/data_progress.h"
#include "tools/data_show.h"

using namespace hax;

namespace {

// Runs `work`; stopped by Ctrl-C it ends the program the way a shell expects.
template <class F>
void interruptible(std::string verb, F&& work) {
  try {
    ProgressLine progress(std::move(verb));
    work(progress);
    return;
  } catch (const Interrupted&) {
    fmt::print(stderr, "hax: interrupted, nothing was written\n");
  }
  std::raise(stop_signal());
}

std::int64_t bytes_in(const std::filesystem::path& folder) {
  std::int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += static_cast<std::int64_t>(entry.file_size());
  }
  return bytes;
}

void print_dataset(const Dataset& dataset) {
  const DatasetInfo& info = dataset.info();
  fmt::print("{}: {}, {}{}\n", dataset.folder().string(), to_string(info.task),
             name_of(info.origin),
             info.origin == Origin::generated ? fmt::format(" from seed {}", info.seed) : "");
  for (const Split split : kSplits) {
    const SplitFile& file = dataset.split(split);
    fmt::print("  {:<6}{:>12} samples {:>14} tokens  {:016x}\n", name_of(split),
               grouped(file.samples()), grouped(file.tokens()), file.checksum());
  }
}

void add_generate(CLI::App& data) {
  struct Options {
    std::string folder;
    TaskOptions task;
    GenerateOptions generate;
  };
  CLI::App* command = data.add_subcommand("generate", "Draw a dataset and write it to a folder");
  auto options = std::make_shared<Options>();
  GenerateOptions& generate = options->generate;
  command->add_option("--out", options->folder, "Folder for the dataset")->required();
  options->task.add_to(*command);
  for (const Split split : kSplits) {
    add_number(*command, fmt::format("--{}", name_of(split)),
               generate.samples[static_cast<std::size_t>(split)],
               fmt::format("Samples in the {} split", name_of(split)));
  }
  add_number(*command, "--seed", generate.seed, "Seed of the random numbers");
  add_number(*command, "--threads", generate.threads, "Threads; 0 for all; the result is the same",
             0, 1024);
  command->add_flag("--force", generate.replace, "Replace a dataset that is there");
  command->callback([options] {
    options->generate.task = options->task.task();
    interruptible("written", [&](ProgressLine& progress) {
      generate_dataset(options->folder, options->generate, progress.callback());
      const double seconds = progress.seconds();
      const Dataset dataset(options->folder);
      print_dataset(dataset);
      const std::int64_t samples = dataset.split(Split::train).samples() +
                                   dataset.split(Split::valid).samples() +
                                   dataset.split(Split::test).samples();
      fmt::print("{} samples, {} bytes, in {:.2f} s\n", grouped(samples),
                 grouped(bytes_in(options->folder)), seconds);
    });
  });
}

void add_show(CLI::App& data) {
  struct Options {
    std::string folder, split = "train";
    TaskOptions task;
    std::uint64_t seed = 0;
    std::int64_t index = 0, count = 1;
    bool numbers = false;
  };
  CLI::App* command = data.add_subcommand(
      "show", "Print samples: contexts A B, keys a b, values 0 1; ? marks what is to be recalled");
  auto options = std::make_shared<Options>();
  command->add_option("--data_dir", options->folder, "Dataset; without it samples are drawn");
  options->task.add_to(*command);
  add_number(*command, "--seed", options->seed, "Seed of drawn samples");
  command->add_option("--split", options->split, "train, valid or test")->capture_default_str();
  add_number(*command, "--index", options->index, "First sample", std::int64_t{0});
  add_number(*command, "--count", options->count, "Number of samples", std::int64_t{0});
  command->add_flag("--tokens", options->numbers, "Print token numbers");
  command->callback([options, command] {
    const Split split = parse_split(options->split);
    const bool from_file = !options->folder.empty();
    check_usage(!from_file || (!options->task.any() && command->count("--seed") == 0),
                "--data_dir has its own task and seed; leave out --contexts --keys --values "
                "--levels --seed");
    std::shared_ptr<const SampleSource> source;
    if (from_file) {
      source = Dataset(options->folder).source(split);
    } else {
      source = std::make_shared<StreamSource>(options->task.task(), options->seed, split);
    }
    const auto end = source->count();
    check_usage(!end || (options->index < *end && options->count <= *end - options->index),
                "--index {} --count {}: the {} split has {} samples", options->index,
                options->count, name_of(split), end.value_or(0));
    for (std::int64_t i = 0; i < options->count; ++i) {
      print_sample(stdout, *source, split, options->index + i, options->numbers);
    }
  });
}

void add_verify(CLI::App& data) {
  CLI::App* command = data.add_subcommand(
      "verify", "Read a whole dataset: checksums, every sample's structure, splits, repetitions");
  auto folder = std::make_shared<std::string>();
  command->add_option("--data_dir", *folder, "Dataset")->required();
  command->callback([folder] {
    const Dataset dataset(*folder);
    interruptible("verified", [&](ProgressLine& progress) {
      verify_dataset(dataset, progress.callback());
      print_dataset(dataset);
    });
  });
}

void add_import(CLI::App& data) {
  struct Options {
    std::string prefix, folder;
    TaskOptions task;
    bool replace = false;
  };
  CLI::App* command = data.add_subcommand(
      "import", "Read PREFIX_{train,valid,test}_{inputs,mask}.txt into a dataset");
  auto options = std::make_shared<Options>();
  command->add_option("--prefix", options->prefix, "Path before _train_inputs.txt")->required();
  command->add_option("--out", options->folder, "Folder for the dataset")->required();
  options->task.add_to(*command);
  command->add_flag("--force", options->replace, "Replace a dataset that is there");
  command->footer("Task flags that are not given are found from the data.");
  command->callback([options] {
    interruptible("imported", [&](ProgressLine& progress) {
      import_text(options->prefix, options->folder, options->task.flags(), options->replace,
                  progress.callback());
      print_dataset(Dataset(options->folder));
    });
  });
}

void add_export(CLI::App& data) {
  struct Options {
    std::string folder, prefix;
    bool replace = false;
  };
  CLI::App* command = data.add_subcommand(
      "export", "Write a dataset as PREFIX_{train,valid,test}_{inputs,mask}.txt");
  auto options = std::make_shared<Options>();
  command->add_option("--data_dir", options->folder, "Dataset")->required();
  command->add_option("--prefix", options->prefix, "Path before _train_inputs.txt")->required();
  command->add_flag("--force", options->replace, "Replace files that are there");
  command->callback([options] {
    const Dataset dataset(options->folder);
    interruptible("exported", [&](ProgressLine& progress) {
      export_text(dataset, options->prefix, options->replace, progress.callback());
    });
  });
}

}  // namespace

void hax::add_data_command(CLI::App& app) {
  CLI::App* data =
      app.add_subcommand("data", "Make, show, check and convert joint recall datasets");
  data->require_subcommand(1);
  add_generate(*data);
  add_show(*data);
  add_verify(*data);
  add_import(*data);
  add_export(*data);
}
