#include "tools/data_show.h"

#include <fmt/format.h>

using namespace hax;

std::string readable(const JointRecallTask& task, std::span<const std::int32_t> tokens) {
  std::string text;
  bool second_half = false;
  for (const std::int32_t token : tokens) {
    if (token == kBosToken) continue;
    second_half |= token == kSepToken;
    const bool asked = second_half && token >= kFirstSymbol && token < task.first_key();
    if (!text.empty()) text += ' ';
    text += (asked ? "?" : "") + token_label(task, token);
  }
  return text;
}

void print_sample(std::FILE* out, const SampleSource& source, Split split, std::int64_t index,
                  bool numbers) {
  std::vector<std::int32_t> tokens;
  source.sample(index, tokens);
  const JointRecallTask& task = source.task();
  if (numbers) {
    fmt::print(out, "{}\n", fmt::join(tokens, " "));
    return;
  }
  const SampleCheck result = check_sample(task, tokens);
  if (result.fault.empty()) {
    fmt::print(out, "{} {}: {}, {} of {} tokens, {} questions\n", name_of(split), index,
               to_string(task, result.sizes), tokens.size(), task.fixed_length(),
               task.entries(result.sizes));
  } else {
    fmt::print(out, "{} {}: {} tokens; not a sample: {}\n", name_of(split), index, tokens.size(),
               result.fault);
  }
  fmt::print(out, "{}\n", readable(task, tokens));
}
