// hax train: a run from a recipe and flags, or the continuation of one.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "engine/check.h"
#include "tools/commands.h"
#include "tools/settings.h"
#include "tools/train_together.h"
#include "train/trainer.h"

namespace hax {
namespace {

std::atomic<bool> stop_requested{false};
std::atomic<std::int64_t> asked_at{0};  // seconds

std::int64_t seconds_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

// The first Ctrl-C asks the trainer to save and stop. Another one ends the process at once, unless
// it comes so soon that it is the same one, delivered to the process and to its group.
void on_interrupt(int) {
  if (!stop_requested.exchange(true)) {
    asked_at = seconds_now();
  } else if (seconds_now() - asked_at >= 2) {
    std::_Exit(130);
  }
}

struct TrainFlags {
  std::string recipe, resume, together;
  SettingFlags settings;
};

// Settings that a resumed run may change without becoming another run.
void refuse_change(std::string_view name) {
  check_usage(name == "step" || name == "threads" || name == "device" || name == "log_step" ||
                  name == "graph",
              "--{} cannot change when a run is resumed (only --step, --threads, --device, --graph "
              "and --log_step can); start a new run instead",
              name);
}

Trainer make_trainer(const TrainFlags& flags) {
  TrainOptions options;
  if (!flags.resume.empty()) {
    check_usage(flags.recipe.empty(), "--recipe and --resume cannot go together");
    options = options_of_run(flags.resume);
    flags.settings.apply(options, refuse_change);
    return Trainer::resume(flags.resume, options);
  }
  if (!flags.recipe.empty()) {
    apply_recipe(find_recipe(flags.recipe), "recipe " + flags.recipe, options);
  }
  std::vector<std::string> given;
  flags.settings.apply(options, [&](std::string_view name) { given.emplace_back(name); });
  check_usage(options.config.empty() || std::ranges::count(given, "base_arch") == 0,
              "--base_arch and --config cannot go together: the configuration names its base");
  options.validate();
  refuse_idle_settings(given, options.model_config(0));
  check_usage(options.device != "cpu" || std::ranges::count(given, "graph") == 0,
              "--graph changes nothing: it says how steps are queued on cuda; leave it out");
  return Trainer::start(options);
}

void catch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

void run_train(const TrainFlags& flags) {
  if (!flags.together.empty()) {
    check_usage(flags.recipe.empty() && flags.resume.empty(),
                "--together names its runs itself: leave out --recipe and --resume");
    catch_interrupts();
    if (!train_together(flags.together, flags.settings, stop_requested)) throw ExitCode{130};
    return;
  }
  Trainer trainer = make_trainer(flags);
  catch_interrupts();
  if (!trainer.run(stop_requested).finished) throw ExitCode{130};
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto* command = app.add_subcommand("train", "train a model, or continue a run with --resume");
  auto flags = std::make_shared<TrainFlags>();
  command->add_option("--recipe", flags->recipe,
                      "settings from a JSON file or a built-in recipe; flags override it");
  command->add_option("--resume", flags->resume, "run folder to continue, bit for bit");
  command->add_option("--together", flags->together,
                      "JSON file [{\"recipe\": file, \"save_dir\": folder}, ...]: runs that share\n"
                      "a GPU in one process, each as if alone; begun, or gone on with");
  flags->settings.add_to(*command, [](std::string_view) { return true; });
  command->callback([flags] { run_train(*flags); });
}

}  // namespace hax
