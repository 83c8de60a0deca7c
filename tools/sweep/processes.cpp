#include "tools/sweep/processes.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "engine/check.h"
#include "train/checkpoint.h"
#include "train/run_files.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

std::atomic<bool> stopping{false};
std::array<std::atomic<pid_t>, 1024> children{};  // 0: a free place; a handler may read it

void ask_children_to_stop() {
  for (const std::atomic<pid_t>& child : children) {
    if (child > 0) ::kill(child, SIGTERM);
  }
}

void on_stop(int) {
  const int error = errno;
  stopping = true;
  ask_children_to_stop();
  errno = error;
}

void replace(pid_t from, pid_t to) {
  for (std::atomic<pid_t>& child : children) {
    if (child.compare_exchange_strong(from, to)) return;
  }
}

void wait_until_free(const fs::path& folder) {
  for (int tenths = 0; tenths < 600; ++tenths) {
    try {
      const FolderLock lock(folder);
      return;
    } catch (const Error&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
}

// In the child: never returns.
[[noreturn]] void become_train(const ChildTask& task, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);  // it died before the line above
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  const int none = ::open("/dev/null", O_RDWR);
  const int errors = ::open(task.errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  ::dup2(none, 0);
  ::dup2(none, 1);
  ::dup2(errors, 2);
  for (const auto& [name, value] : task.environment) ::setenv(name.c_str(), value.c_str(), 1);
  for (const fs::path& folder : task.folders) wait_until_free(folder);
  std::vector<std::string> words{"hax", "train"};
  if (task.folders.size() > 1) {
    words.insert(words.end(), {"--together", task.recipe});
  } else if (fs::exists(existing_checkpoint(task.folders[0] / "last"))) {
    words.insert(words.end(), {"--resume", task.folders[0]});
  } else {
    words.insert(words.end(), {"--recipe", task.recipe, "--save_dir", task.folders[0]});
  }
  words.insert(words.end(), task.flags.begin(), task.flags.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv("/proc/self/exe", argv.data());
  fmt::print(stderr, "hax: cannot start hax train: {}\n", std::strerror(errno));
  ::_exit(1);
}

}  // namespace

pid_t start_child(const ChildTask& task) {
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  check(child >= 0, "cannot start another process: {}", std::strerror(errno));
  if (child == 0) {
    try {
      become_train(task, parent);
    } catch (const std::exception& error) {
      fmt::print(stderr, "hax: {}\n", error.what());
      ::_exit(1);
    }
  }
  replace(0, child);
  if (stopping) ::kill(child, SIGTERM);  // the signal came while it was made
  return child;
}

ChildEnd wait_for_child() {
  int status = 0;
  pid_t pid = -1;
  do {
    pid = ::waitpid(-1, &status, 0);
  } while (pid < 0 && errno == EINTR);
  check(pid > 0, "cannot wait for a run: {}", std::strerror(errno));
  replace(pid, 0);
  return {pid, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool stop_requested() { return stopping; }

}  // namespace hax
