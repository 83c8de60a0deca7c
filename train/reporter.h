// What a run tells people while it goes: one calm line on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "train/step.h"

namespace hax {

/// A piece of a status line.
struct LinePart {
  std::string text;
  int importance = 0;
};

/// The parts joined by two spaces, in at most `columns` characters: the least important parts are
/// left out first (of equal ones the later), and what is still too long is cut.
std::string fit_line(std::vector<LinePart> parts, std::size_t columns);

class Reporter {
 public:
  /// Writes to `out` (may be null); when it is a terminal, to one live line, never wider than it
  /// is, with means over about the last 20 steps. Plain lines have the numbers of their own step,
  /// as metrics.jsonl has them; they also go to `log` (may be null).
  Reporter(std::FILE* out, std::FILE* log, std::int64_t steps, std::int64_t plain_every);

  /// After each step.
  void step(std::int64_t step, const StepResult& result);
  /// A line that stays.
  void line(const std::string& text);

 private:
  double seconds() const;
  struct Numbers {
    double loss = 0, gate_loss = 0, accuracy = 0;
  };
  std::vector<LinePart> describe(std::int64_t step, const Numbers& numbers) const;

  std::FILE* out_;
  std::FILE* log_;
  bool live_;
  std::int64_t steps_, plain_every_;
  std::int64_t first_step_ = -1;
  double tokens_ = 0, shown_at_ = -1;
  Numbers recent_;  // means over recent steps
  std::chrono::steady_clock::time_point start_;
};

/// "4 s", "3 min 20 s", "1 h 5 min"
std::string format_duration(double seconds);

}  // namespace hax
