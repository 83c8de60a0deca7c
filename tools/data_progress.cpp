#include "tools/data_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace {

volatile std::sig_atomic_t stop_requested = 0;

void request_stop(int signal) {
  stop_requested = signal;
  std::signal(signal, SIG_DFL);  // a second Ctrl-C ends the program at once
}

}  // namespace

int stop_signal() { return stop_requested; }

std::string grouped(std::int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

ProgressLine::ProgressLine(std::string verb)
    : verb_(std::move(verb)), terminal_(::isatty(STDERR_FILENO) == 1) {
  stop_requested = 0;
  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
}

ProgressLine::~ProgressLine() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  if (line_open_) fmt::print(stderr, "\n");
}

hax::DataProgress ProgressLine::callback() {
  return [this](hax::Split split, std::int64_t done, std::int64_t total) {
    return update(split, done, total);
  };
}

double ProgressLine::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

bool ProgressLine::update(hax::Split split, std::int64_t done, std::int64_t total) {
  using namespace std::chrono_literals;
  const Clock::time_point now = Clock::now();
  const bool finished = done == total;
  if (finished || now - last_ >= (terminal_ ? Clock::duration(100ms) : Clock::duration(10s))) {
    last_ = now;
    const std::string text = fmt::format(
        "{}: {} of {} samples {} ({}%)", name_of(split), grouped(done), grouped(total), verb_,
        total == 0
            ? 100
            : static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total)));
    if (terminal_) {
      fmt::print(stderr, "\r{}\x1b[K{}", text, finished ? "\n" : "");
      line_open_ = !finished;
    } else {
      fmt::print(stderr, "{}\n", text);
    }
  }
  return stop_requested == 0;
}
