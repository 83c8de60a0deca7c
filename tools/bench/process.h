// Running another program: text in, text out.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace hax::bench {

struct ProcessResult {
  int code = 0;     ///< exit code; 127 when there is no such program; 128 + signal
  std::string out;  ///< what it printed, errors included
};

/// Runs `args`, found on PATH, with `settings` in its environment unless they are there already,
/// feeds it `input`, and waits. Throws Error when no process can be made.
ProcessResult run_process(const std::vector<std::string>& args, const std::string& input,
                          const std::vector<std::pair<std::string, std::string>>& settings);

}  // namespace hax::bench
