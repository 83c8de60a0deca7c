// hax inspect: one step of a model, seen from inside.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "engine/check.h"
#include "engine/files.h"
#include "tools/commands.h"
#include "tools/data_flags.h"
#include "tools/inspect/text.h"
#include "tools/settings.h"
#include "train/checkpoint.h"
#include "train/fixture.h"
#include "train/task.h"
#include "train/trainer.h"

namespace hax {
namespace {

struct InspectFlags {
  std::string checkpoint, fixture, out, format = "html", split = "train";
  std::int64_t sample = 0, samples = 1;
  SettingFlags settings;
};

bool is_wanted(std::string_view name) {
  for (const char* wanted : {"base_arch", "sparse_arch", "config", "sparse_keys", "num_hash",
                             "data_max_length", "norm_mode", "lsh_center", "contexts", "keys",
                             "values", "levels", "data_dir", "lr", "gate_loss_weight", "seed"}) {
    if (name == wanted) return true;
  }
  return false;
}

bool describes_model(std::string_view name) {
  for (const char* wanted : {"base_arch", "sparse_arch", "config", "sparse_keys", "num_hash",
                             "data_max_length", "norm_mode", "lsh_center"}) {
    if (name == wanted) return true;
  }
  return false;
}

// Those of the run that a checkpoint belongs to; defaults when it stands alone.
TrainOptions starting_options(const InspectFlags& flags) {
  if (flags.checkpoint.empty()) return {};
  std::filesystem::path folder = std::filesystem::absolute(flags.checkpoint);
  for (int up = 0; up < 3; ++up, folder = folder.parent_path()) {
    if (std::filesystem::exists(folder / "recipe.json")) return options_of_run(folder);
  }
  return {};
}

Batch samples_of(const Task& task, const InspectFlags& flags) {
  const Split split = parse_split(flags.split);
  if (split == Split::train) return task.train_batch(flags.sample, flags.samples);
  check_usage(flags.sample + flags.samples <= task.count(split),
              "--sample {}: the {} split has {} samples", flags.sample, flags.split,
              task.count(split));
  return task.batch(split, flags.sample, flags.samples);
}

// The key of the table that each target asks for.
void find_answers(const Task& task, const Batch& batch, Inspection& inspection) {
  const std::vector<TargetFacts> facts = task.target_facts(batch);
  for (std::size_t t = 0; t < facts.size(); ++t) {
    inspection.targets[t].answer = inspection.targets[t].position - facts[t].distance;
  }
}

void write(const InspectFlags& flags, const Inspection& inspection, const std::string& title,
           const inspect::TokenLabel& label) {
  const std::string text = flags.format == "dot"    ? inspect::to_dot(inspection)
                           : flags.format == "json" ? inspect::to_json(inspection, title, label)
                                                    : inspect::to_html(inspection, title, label);
  write_file_atomically(flags.out, text);
  std::size_t backward = 0;
  for (const InspectedOp& op : inspection.ops) backward += op.backward_order >= 0 ? 1 : 0;
  fmt::print("{}: {} ops, {} of them backward, {} parameters, loss {:.4f}; {:.1f} MB\n", flags.out,
             inspection.ops.size(), backward, inspection.parameters.size(), inspection.loss,
             static_cast<double>(text.size()) / 1e6);
}

void inspect_fixture(const InspectFlags& flags) {
  flags.settings.apply(*std::make_unique<TrainOptions>(), [](std::string_view name) {
    throw UsageError(fmt::format("--{}: a fixture brings its own model and samples", name));
  });
  with_fixture(flags.fixture, DType::float32, [&](const FixtureStep& step) {
    const Inspection inspection =
        inspect_step({step.model, step.parameters, step.random, step.batch, step.gate_loss_weight});
    write(flags, inspection, std::filesystem::path(flags.fixture).stem().string(),
          [](std::int32_t token) { return std::to_string(token); });
  });
}

void inspect_model(const InspectFlags& flags) {
  TrainOptions options = starting_options(flags);
  std::vector<std::string> given;
  flags.settings.apply(options, [&](std::string_view name) {
    check_usage(flags.checkpoint.empty() || !describes_model(name),
                "--{}: the model is that of --checkpoint; leave one of them out", name);
    given.emplace_back(name);
  });
  options.validate();
  const std::unique_ptr<Task> task = open_task(options);
  LoadedModel loaded;
  if (flags.checkpoint.empty()) {
    loaded.model = std::make_unique<Model>(options.model_config(task->vocab_size()));
    refuse_idle_settings(given, loaded.model->config());
    loaded.parameters = std::make_unique<Parameters>(loaded.model->parameters());
    loaded.parameters->initialize(static_cast<std::uint64_t>(options.seed));
  } else {
    loaded = load_model(flags.checkpoint);
    check_usage(task->vocab_size() <= loaded.model->config().vocab_size,
                "the task has {} tokens, the model in {} only {}", task->vocab_size(),
                loaded.folder.string(), loaded.model->config().vocab_size);
  }
  const Batch batch = samples_of(*task, flags);
  const DrawnInputs random(static_cast<std::uint64_t>(options.seed), 1);
  Inspection inspection = inspect_step(
      {*loaded.model, *loaded.parameters, random, batch, options.gate_loss_weight, options.lr});
  find_answers(*task, batch, inspection);
  const ModelConfig& config = inspection.config;
  const std::string model =
      flags.checkpoint.empty()
          ? fmt::format("{}, untrained", config.sparse_arch == "none"
                                             ? options.base_arch
                                             : options.base_arch + " + " + config.sparse_arch)
          : flags.checkpoint;
  write(flags, inspection,
        fmt::format("{}; {} sample {}, {}", model, flags.split, flags.sample, task->describe()),
        [&](std::int32_t token) { return task->token_label(token); });
}

void run_inspect(const InspectFlags& flags) {
  check_usage(!flags.out.empty(), "--out is missing: the file to write");
  check_usage(flags.format == "html" || flags.format == "json" || flags.format == "dot",
              "--format {}: expected html, json or dot", flags.format);
  check_usage(flags.fixture.empty() || flags.checkpoint.empty(),
              "--fixture and --checkpoint cannot go together");
  if (flags.fixture.empty()) {
    inspect_model(flags);
  } else {
    inspect_fixture(flags);
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "inspect", "one training step seen from inside: graph, gradients, attention, states");
  auto flags = std::make_shared<InspectFlags>();
  command->add_option("--out", flags->out, "file to write")->type_name("FILE");
  command->add_option("--format", flags->format, "html, json or dot")->capture_default_str();
  command->add_option("--checkpoint", flags->checkpoint,
                      "run folder (its best model), checkpoint folder or model.safetensors; "
                      "without it a fresh model");
  command->add_option("--fixture", flags->fixture,
                      "a fixture of hax verify, with its model and samples");
  command->add_option("--split", flags->split, "train, valid or test")->capture_default_str();
  add_number(*command, "--sample", flags->sample, "first sample to look at", std::int64_t{0},
             std::int64_t{1} << 40);
  add_number(*command, "--samples", flags->samples, "how many", std::int64_t{1}, std::int64_t{16});
  flags->settings.add_to(*command, is_wanted);
  command->callback([flags] { run_inspect(*flags); });
}

}  // namespace hax
