// hax eval: accuracy of a run folder or checkpoint on a split.
#include <fmt/format.h>
#include <omp.h>

#include "engine/check.h"
#include "tools/commands.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/trainer.h"

namespace hax {
namespace {

struct EvalFlags {
  std::string checkpoint, split = "test";
  TrainOptions options;
  std::vector<std::pair<CLI::Option*, const OptionSpec*>> given;
  bool json = false;
};

// The flags that choose data; everything else is in the checkpoint.
bool chooses_data(std::string_view name) {
  for (const char* wanted : {"contexts", "keys", "values", "levels", "data_dir", "valid_samples",
                             "test_samples", "seed", "threads"}) {
    if (name == wanted) return true;
  }
  return false;
}

// The run's own task and seed where there is a run, changed by what was given.
TrainOptions task_options(const EvalFlags& flags) {
  TrainOptions options;
  for (const std::filesystem::path& folder :
       {std::filesystem::path(flags.checkpoint),
        std::filesystem::absolute(flags.checkpoint).parent_path()}) {
    if (!std::filesystem::exists(folder / "recipe.json")) continue;
    options = options_of_run(folder);
    break;
  }
  for (const auto& [flag, spec] : flags.given) {
    if (flag->count() == 0) continue;
    std::visit([&](auto member) { options.*member = flags.options.*member; }, spec->member);
  }
  options.validate();
  return options;
}

void run_eval(const EvalFlags& flags) {
  const Split split = parse_split(flags.split);
  const TrainOptions options = task_options(flags);
  if (options.threads > 0) omp_set_num_threads(static_cast<int>(options.threads));
  const LoadedModel loaded = load_model(flags.checkpoint);
  const std::unique_ptr<Task> task = open_task(options);
  check_usage(task->vocab_size() <= loaded.model->config().vocab_size,
              "the task has {} tokens, the model in {} only {}", task->vocab_size(),
              loaded.folder.string(), loaded.model->config().vocab_size);
  const StepResult result = evaluate(*loaded.model, *loaded.parameters, *task, split,
                                     static_cast<std::uint64_t>(options.seed));
  if (flags.json) {
    fmt::print("{{\"split\": \"{}\", \"samples\": {}, \"accuracy\": {}, \"loss\": {}}}\n",
               name_of(split), result.samples, result.accuracy, result.lm_loss);
  } else {
    fmt::print("{}: accuracy {:.2f} %, loss {:.4f} on {} {} samples ({})\n", loaded.folder.string(),
               100 * result.accuracy, result.lm_loss, result.samples, name_of(split),
               task->describe());
  }
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto* command = app.add_subcommand("eval", "evaluate a run folder or a checkpoint");
  auto flags = std::make_shared<EvalFlags>();
  command
      ->add_option("--checkpoint", flags->checkpoint,
                   "run folder (its best model), checkpoint folder or model.safetensors")
      ->required();
  command->add_option("--split", flags->split, "valid or test")->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON object");
  for (const OptionSpec& spec : option_specs()) {
    if (!chooses_data(spec.name)) continue;
    std::visit(
        [&](auto member) {
          flags->given.emplace_back(
              command->add_option(std::string("--") + spec.name, flags->options.*member, spec.help),
              &spec);
        },
        spec.member);
  }
  command->callback([flags] { run_eval(*flags); });
}

}  // namespace hax
