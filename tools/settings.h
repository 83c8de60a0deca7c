// Flags for the settings of a run (train/options.h), shared by the subcommands that take them.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <utility>
#include <vector>

#include "train/options.h"

namespace hax {

/// Settings given on the command line.
class SettingFlags {
 public:
  /// Declares --name for every setting that `wanted` accepts. Help shows the setting's default, or
  /// `otherwise` where what is not given comes from somewhere else.
  void add_to(CLI::App& command, const std::function<bool(std::string_view)>& wanted,
              const std::string& otherwise = {});
  /// Copies what was given over `options`; calls `on_given` with each name first (it may throw).
  void apply(TrainOptions& options,
             const std::function<void(std::string_view)>& on_given = {}) const;

 private:
  TrainOptions values_;
  std::vector<std::pair<CLI::Option*, const OptionSpec*>> flags_;
};

}  // namespace hax
