// Running the hax binary as a user would.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hax::test {

struct CommandResult {
  int code = 0;  ///< exit code; 128 + signal when a signal ended it
  std::string out, err;
};

/// Runs `hax args...`; with kill_after_ms > 0 sends `signal` after that time.
CommandResult run_hax(const std::vector<std::string>& args, int kill_after_ms = 0, int signal = 0);

/// A fresh folder that disappears with the object.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::filesystem::path path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

void write_text(const std::string& path, const std::string& text);
std::string read_text(const std::string& path);

}  // namespace hax::test
