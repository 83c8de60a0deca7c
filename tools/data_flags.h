// The flags that choose a joint recall task: --contexts --keys --values --levels.
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "data/text_format.h"
#include "engine/check.h"

/// A whole decimal number between the bounds; nothing else. Throws UsageError that names `flag`.
template <class T>
T parse_number(std::string_view text, std::string_view flag, T lo, T hi) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  hax::check_usage(
      error == std::errc{} && end == text.data() + text.size() && lo <= value && value <= hi,
      "{} '{}': expected a whole number from {} to {}", flag, text, lo, hi);
  return value;
}

/// A flag for a number or an optional one. (CLI11 itself takes 010 for 8, and -1 or 2^64 for
/// unsigned numbers.)
template <class Target, class T = Target>
CLI::Option* add_number(CLI::App& app, const std::string& flag, Target& target,
                        const std::string& description, T lo = std::numeric_limits<T>::min(),
                        T hi = std::numeric_limits<T>::max()) {
  CLI::Option* option = app.add_option_function<std::string>(
      flag,
      [&target, flag, lo, hi](const std::string& text) {
        target = parse_number<T>(text, flag, lo, hi);
      },
      description);
  if constexpr (std::is_same_v<Target, T>) option->default_str(std::to_string(target));
  return option->type_name("NUMBER");
}

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
