#include "tools/bench/process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "engine/check.h"

namespace hax::bench {
namespace {

// Closes what it holds.
struct File {
  int number = -1;
  ~File() { close(); }
  void close() {
    if (number >= 0) ::close(number);
    number = -1;
  }
};

// A nameless file in memory that holds `text`: unlike a pipe it cannot fill up.
void open_with(File& file, const std::string& text) {
  file.number = ::memfd_create("input", MFD_CLOEXEC);
  check(file.number >= 0, "cannot make a file in memory");
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(file.number, text.data() + done, text.size() - done);
    check(wrote > 0, "cannot write {} bytes to a file in memory", text.size());
    done += static_cast<std::size_t>(wrote);
  }
  ::lseek(file.number, 0, SEEK_SET);
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& args, const std::string& input,
                          const std::vector<std::pair<std::string, std::string>>& settings) {
  File in, out, child_out;
  open_with(in, input);
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe");
  out.number = ends[0];
  child_out.number = ends[1];
  std::vector<char*> argv;
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);

  const pid_t child = ::fork();
  check(child >= 0, "cannot start {}", args.front());
  if (child == 0) {
    ::dup2(in.number, STDIN_FILENO);
    ::dup2(child_out.number, STDOUT_FILENO);
    ::dup2(child_out.number, STDERR_FILENO);
    for (const auto& [name, value] : settings) ::setenv(name.c_str(), value.c_str(), 0);
    ::execvp(argv.front(), argv.data());
    ::_exit(127);
  }
  child_out.close();
  ProcessResult result;
  char buffer[4096];
  for (ssize_t count = 0; (count = ::read(out.number, buffer, sizeof buffer)) > 0;) {
    result.out.append(buffer, static_cast<std::size_t>(count));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace hax::bench
