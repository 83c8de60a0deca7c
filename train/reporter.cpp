#include "train/reporter.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "engine/check.h"

namespace hax {
namespace {

constexpr std::size_t kNoLimit = std::string::npos;

// Characters that fit on the terminal behind `file` without touching the last column, after which
// some terminals wrap. Asked each time, since windows change.
std::size_t usable_columns(std::FILE* file) {
  ::winsize size{};
  if (::ioctl(::fileno(file), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size.ws_col = 80;
  return size.ws_col - 1u;
}

}  // namespace

std::string fit_line(std::vector<LinePart> parts, std::size_t columns) {
  const auto joined = [&] {
    std::string line;
    for (const LinePart& part : parts) line += (line.empty() ? "" : "  ") + part.text;
    return line;
  };
  std::string line = joined();
  while (line.size() > columns && parts.size() > 1) {
    const auto least = std::min_element(
        parts.rbegin(), parts.rend(),
        [](const LinePart& a, const LinePart& b) { return a.importance < b.importance; });
    parts.erase(std::next(least).base());
    line = joined();
  }
  return line.substr(0, columns);
}

std::string format_duration(double seconds) {
  const auto total = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (total < 60) return fmt::format("{} s", total);
  if (total < 3600) return fmt::format("{} min {} s", total / 60, total % 60);
  return fmt::format("{} h {} min", total / 3600, total % 3600 / 60);
}

Reporter::Reporter(std::FILE* out, std::FILE* log, std::int64_t steps, std::int64_t plain_every)
    : out_(out),
      log_(log),
      live_(out != nullptr && ::isatty(::fileno(out)) != 0),
      steps_(steps),
      plain_every_(plain_every),
      start_(std::chrono::steady_clock::now()) {}

double Reporter::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

std::vector<LinePart> Reporter::describe(std::int64_t step, const Numbers& numbers) const {
  const double elapsed = std::max(seconds(), 1e-9);
  const double left =
      elapsed / static_cast<double>(step - first_step_ + 1) * static_cast<double>(steps_ - step);
  std::vector<LinePart> parts{{fmt::format("step {}/{}", step, steps_), 5},
                              {fmt::format("loss {:.4f}", numbers.loss), 4}};
  if (numbers.gate_loss != 0) {
    parts.push_back({fmt::format("ranking {:.4f}", numbers.gate_loss), 1});
  }
  parts.push_back({fmt::format("accuracy {:5.1f} %", 100 * numbers.accuracy), 3});
  parts.push_back({fmt::format("{:.0f} tokens/s", tokens_ / elapsed), 0});
  parts.push_back({fmt::format("{} left", format_duration(left)), 2});
  return parts;
}

void Reporter::step(std::int64_t step, const StepResult& result) {
  const bool first = first_step_ < 0;
  if (first) first_step_ = step;
  const double share = first ? 1 : 0.05;
  recent_.loss += share * (result.lm_loss - recent_.loss);
  recent_.gate_loss += share * (result.gate_loss - recent_.gate_loss);
  recent_.accuracy += share * (result.accuracy - recent_.accuracy);
  const Numbers own{result.lm_loss, result.gate_loss, result.accuracy};
  tokens_ += static_cast<double>(result.tokens);

  const bool plain = step % plain_every_ == 0 || step == steps_;
  if (live_ && seconds() - shown_at_ > 0.25) {
    shown_at_ = seconds();
    fmt::print(out_, "\r\x1b[K{}", fit_line(describe(step, recent_), usable_columns(out_)));
    std::fflush(out_);
  } else if (out_ && !live_ && plain) {
    fmt::print(out_, "{}\n", fit_line(describe(step, own), kNoLimit));
    std::fflush(out_);
  }
  if (log_ && plain) {
    fmt::print(log_, "{}\n", fit_line(describe(step, own), kNoLimit));
    std::fflush(log_);
  }
}

void Reporter::line(const std::string& text) {
  if (out_) {
    fmt::print(out_, "{}{}\n", live_ ? "\r\x1b[K" : "", text);
    std::fflush(out_);
  }
  if (log_) {
    fmt::print(log_, "{}\n", text);
    std::fflush(log_);
  }
}

}  // namespace hax
