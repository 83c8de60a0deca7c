// hax eval: accuracy of a run folder or checkpoint on a split.
#include <fmt/format.h>
#include <omp.h>

#include <cmath>

#include "engine/check.h"
#include "engine/files.h"
#include "tools/commands.h"
#include "tools/settings.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/trainer.h"

namespace hax {
namespace {

struct EvalFlags {
  std::string checkpoint, split = "test", breakdown;
  SettingFlags settings;
  bool json = false;
};

// The flags that choose data; everything else is in the checkpoint.
bool chooses_data(std::string_view name) {
  for (const char* wanted : {"contexts", "keys", "values", "levels", "data_dir", "valid_samples",
                             "test_samples", "seed", "threads", "device"}) {
    if (name == wanted) return true;
  }
  return false;
}

// The options of the run that the checkpoint belongs to; defaults when it stands alone.
TrainOptions options_of_checkpoint(const std::string& checkpoint) {
  std::filesystem::path folder = std::filesystem::absolute(checkpoint);
  for (int up = 0; up < 3; ++up, folder = folder.parent_path()) {
    if (std::filesystem::exists(folder / "recipe.json")) return options_of_run(folder);
  }
  return {};
}

// The run's own task and seed, changed by what was given: a task given here replaces the run's
// folder, and the other way round.
TrainOptions task_options(const EvalFlags& flags) {
  TrainOptions options = options_of_checkpoint(flags.checkpoint);
  bool task_given = false, folder_given = false;
  TrainOptions given;
  flags.settings.apply(given, [&](std::string_view name) {
    folder_given = folder_given || name == "data_dir";
    task_given =
        task_given || name == "contexts" || name == "keys" || name == "values" || name == "levels";
  });
  const TrainOptions defaults;
  if (task_given) options.data_dir.clear();
  if (folder_given) {
    options.contexts = defaults.contexts;
    options.keys = defaults.keys;
    options.values = defaults.values;
    options.levels = defaults.levels;
  }
  if (task_given || folder_given) options.valid_samples = options.test_samples = 0;
  flags.settings.apply(options);
  options.validate();
  return options;
}

void run_eval(const EvalFlags& flags) {
  check_usage(flags.split == "valid" || flags.split == "test", "--split {}: expected valid or test",
              flags.split);
  const Split split = parse_split(flags.split);
  const TrainOptions options = task_options(flags);
  if (options.threads > 0) omp_set_num_threads(static_cast<int>(options.threads));
  const LoadedModel loaded = load_model(flags.checkpoint, parse_device(options.device));
  const std::unique_ptr<Task> task = open_task(options);
  check_usage(task->vocab_size() <= loaded.model->config().vocab_size,
              "the task has {} tokens, the model in {} only {}", task->vocab_size(),
              loaded.folder.string(), loaded.model->config().vocab_size);
  Breakdown breakdown;
  const StepResult result = evaluate(*loaded.model, *loaded.parameters, *task, split,
                                     static_cast<std::uint64_t>(options.seed), {},
                                     flags.breakdown.empty() ? nullptr : &breakdown);
  check(std::isfinite(result.lm_loss), "{}: the loss is not finite; the model is damaged",
        flags.checkpoint);
  if (!flags.breakdown.empty()) write_file_atomically(flags.breakdown, breakdown.to_json());
  if (flags.json) {
    fmt::print("{{\"split\": \"{}\", \"samples\": {}, \"accuracy\": {}, \"loss\": {}}}\n",
               name_of(split), result.samples, result.accuracy, result.lm_loss);
  } else {
    fmt::print("{}: accuracy {:.2f} %, loss {:.4f} on {} {} samples ({})\n",
               loaded.folder.empty() ? flags.checkpoint : loaded.folder.string(),
               100 * result.accuracy, result.lm_loss, result.samples, name_of(split),
               task->describe());
  }
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "eval", "evaluate a run folder or a checkpoint; what is not given is as the run had it");
  auto flags = std::make_shared<EvalFlags>();
  command
      ->add_option("--checkpoint", flags->checkpoint,
                   "run folder (its best model), checkpoint folder or model.safetensors")
      ->required();
  command->add_option("--split", flags->split, "valid or test")->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON object");
  command->add_option("--breakdown", flags->breakdown,
                      "file to write: accuracy by table size and by distance, as JSON");
  flags->settings.add_to(*command, chooses_data, "as the run had it");
  command->callback([flags] { run_eval(*flags); });
}

}  // namespace hax
