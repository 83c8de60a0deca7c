// Progress of long data commands, and stopping them by Ctrl-C.
#pragma once

#include <chrono>
#include <string>

#include "data/dataset.h"

/// 1440000 -> "1,440,000"
std::string grouped(std::int64_t number);

/// The signal that asked to stop, or 0.
int stop_signal();

/// Shows progress on stderr: one line that changes on a terminal; elsewhere a line when a split is
/// done and every ten seconds. While it lives, Ctrl-C makes the work stop tidily.
class ProgressLine {
 public:
  /// `verb` is what is done to the samples: "written".
  explicit ProgressLine(std::string verb);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  hax::DataProgress callback();
  double seconds() const;

 private:
  bool update(hax::Split split, std::int64_t done, std::int64_t total);

  using Clock = std::chrono::steady_clock;
  std::string verb_;
  bool terminal_;
  bool line_open_ = false;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};
