// The flags that choose a joint recall task: --contexts --keys --values --levels.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "data/text_format.h"

/// Reads the flags. Must outlive the parsing.
class TaskOptions {
 public:
  void add_to(CLI::App& app);
  /// What was given. Throws UsageError for a malformed range.
  hax::TaskFlags flags() const;
  /// The task, with the paper's defaults (contexts and keys 5:16, 16 values, 2 levels) for what was
  /// not given. Throws UsageError.
  hax::JointRecallTask task() const;
  bool any() const { return contexts_ || keys_ || values_ || levels_; }

 private:
  std::optional<std::string> contexts_, keys_;
  std::optional<std::int32_t> values_, levels_;
};
