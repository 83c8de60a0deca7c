// Child processes of a sweep: each a `hax train`, ended when the sweep ends.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace hax {

/// What one child is to do.
struct ChildTask {
  std::vector<std::filesystem::path> folders;  ///< of its runs, which exist
  std::string recipe;  ///< file for a run that begins; of several runs, their list (--together)
  std::vector<std::string> flags;  ///< of both beginning and going on
  std::map<std::string, std::string> environment;
  std::filesystem::path errors;  ///< file that takes its standard error
};

struct ChildEnd {
  pid_t pid = -1;
  int code = 0;  ///< exit code; 128 + signal when a signal ended it
};

/// Starts `hax train`: --resume where the folder holds a checkpoint, --recipe otherwise; --together
/// for several runs. Where an earlier process still holds the folder (the child of a sweep that was
/// killed, saving its work), the child first waits for it, a minute at most. The kernel asks it to
/// save and stop when this process dies. Throws Error when no process can be made.
pid_t start_child(const ChildTask& task);

/// Waits for a child to end.
ChildEnd wait_for_child();

/// From now on SIGINT and SIGTERM ask all children to save and stop, and stop_requested() tells.
void catch_stop_signals();
bool stop_requested();

}  // namespace hax
