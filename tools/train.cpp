// hax train: a run from a recipe and flags, or the continuation of one.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>

#include "engine/check.h"
#include "tools/commands.h"
#include "train/trainer.h"

namespace hax {
namespace {

std::atomic<bool> stop_requested{false};

// The first Ctrl-C asks the trainer to save and stop; the second one ends the process at once.
void on_interrupt(int signal) {
  stop_requested = true;
  std::signal(signal, SIG_DFL);
}

struct TrainFlags {
  std::string recipe, resume;
  TrainOptions options;  // only what is given on the command line is read from here
  std::vector<std::pair<CLI::Option*, const OptionSpec*>> given;
};

// Options that a resumed run may change without becoming another run.
bool may_change(std::string_view name) {
  return name == "step" || name == "threads" || name == "device" || name == "log_step";
}

void copy_given(const TrainFlags& flags, TrainOptions& options, bool resuming) {
  for (const auto& [flag, spec] : flags.given) {
    if (flag->count() == 0) continue;
    check_usage(!resuming || may_change(spec->name),
                "--{} cannot change when a run is resumed (only --step, --threads, --device and "
                "--log_step can); start a new run instead",
                spec->name);
    std::visit([&](auto member) { options.*member = flags.options.*member; }, spec->member);
  }
}

Trainer make_trainer(const TrainFlags& flags) {
  TrainOptions options;
  if (!flags.resume.empty()) {
    check_usage(flags.recipe.empty(), "--recipe and --resume cannot go together");
    options = options_of_run(flags.resume);
    copy_given(flags, options, true);
    return Trainer::resume(flags.resume, options);
  }
  if (!flags.recipe.empty()) {
    apply_recipe(find_recipe(flags.recipe), "recipe " + flags.recipe, options);
  }
  copy_given(flags, options, false);
  return Trainer::start(options);
}

void run_train(const TrainFlags& flags) {
  Trainer trainer = make_trainer(flags);
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  if (!trainer.run(stop_requested).finished) throw ExitCode{130};
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto* command = app.add_subcommand("train", "train a model, or continue a run with --resume");
  auto flags = std::make_shared<TrainFlags>();
  command->add_option("--recipe", flags->recipe,
                      "settings from a JSON file or a built-in recipe; flags override it");
  command->add_option("--resume", flags->resume, "run folder to continue, bit for bit");
  for (const OptionSpec& spec : option_specs()) {
    std::visit(
        [&](auto member) {
          CLI::Option* flag =
              command->add_option(std::string("--") + spec.name, flags->options.*member, spec.help);
          flags->given.emplace_back(flag->capture_default_str(), &spec);
        },
        spec.member);
  }
  command->callback([flags] { run_train(*flags); });
}

}  // namespace hax
