// Running the hax binary as a user would.
#pragma once

#include <string>
#include <vector>

#include "tests/support/files.h"

namespace hax::test {

struct CommandResult {
  int code = 0;  ///< exit code; 128 + signal when a signal ended it
  std::string out, err;
};

/// Runs `hax args...`; with kill_after_ms > 0 sends `signal` after that time.
CommandResult run_hax(const std::vector<std::string>& args, int kill_after_ms = 0, int signal = 0);

void write_text(const std::string& path, const std::string& text);
std::string read_text(const std::string& path);

}  // namespace hax::test
