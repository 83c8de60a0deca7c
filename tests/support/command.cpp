#include "tests/support/command.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <fstream>
#include <sstream>
#include <thread>

#include "engine/check.h"

namespace hax::test {

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

CommandResult run_hax(const std::vector<std::string>& args, const CommandOptions& options) {
  const TempFolder folder;
  const std::string out = folder / "out", err = folder / "err";
  std::string binary = hax_binary();
  std::vector<char*> argv{binary.data()};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  check(child >= 0, "cannot fork");
  if (child == 0) {
    const int out_file = ::open(out.c_str(), O_WRONLY | O_CREAT, 0600);
    const int err_file = ::open(err.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(out_file, 1);
    ::dup2(err_file, 2);
    if (options.file_bytes > 0) {
      const rlimit limit{static_cast<rlim_t>(options.file_bytes),
                         static_cast<rlim_t>(options.file_bytes)};
      ::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit fails instead
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ::execv(binary.c_str(), argv.data());
    ::_exit(127);
  }
  if (options.kill_after_ms > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(options.kill_after_ms));
    ::kill(child, options.signal);
  }
  int status = 0;
  check(::waitpid(child, &status, 0) == child, "cannot wait for hax");
  CommandResult result;
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_text(out);
  result.err = read_text(err);
  return result;
}

}  // namespace hax::test
