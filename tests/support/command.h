// Running the hax binary as a user would.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/files.h"

namespace hax::test {

struct CommandResult {
  int code = 0;  ///< exit code; 128 + signal when a signal ended it
  std::string out, err;
};

struct CommandOptions {
  int kill_after_ms = 0;  ///< with a positive value, `signal` is sent after that time
  int signal = 0;
  std::int64_t file_bytes =
      0;  ///< with a positive value, no file can grow beyond this: a full disk
};

/// Runs `hax args...`.
CommandResult run_hax(const std::vector<std::string>& args, const CommandOptions& options = {});

void write_text(const std::string& path, const std::string& text);
std::string read_text(const std::string& path);

}  // namespace hax::test
