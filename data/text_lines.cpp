#include "data/text_lines.h"

#include <cstring>

namespace hax {

TextLines::TextLines(const std::filesystem::path& path) : path_(path), file_(path), begins_{0} {
  const std::string_view text = file_.text();
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    at = end == text.npos ? text.size() : end + 1;
    begins_.push_back(at);
  }
}

std::string_view TextLines::line(std::int64_t index) const {
  const std::size_t begin = begins_[static_cast<std::size_t>(index)];
  std::string_view line =
      file_.text().substr(begin, begins_[static_cast<std::size_t>(index) + 1] - begin);
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

void TextLines::numbers(std::int64_t index, std::vector<std::int32_t>& out) const {
  constexpr std::ptrdiff_t kMostDigits = 9;
  out.clear();
  const std::string_view text = line(index);
  const char *at = text.data(), *const end = at + text.size();
  for (;;) {
    while (at != end && *at == ' ') ++at;
    if (at == end) break;
    const char* const begin = at;
    std::int32_t value = 0;
    while (at != end && at - begin <= kMostDigits && '0' <= *at && *at <= '9') {
      if (at - begin < kMostDigits) value = 10 * value + (*at - '0');
      ++at;
    }
    if (at == begin || at - begin > kMostDigits || (at != end && *at != ' ')) {
      while (at != end && *at != ' ' && at - begin < 20) ++at;
      std::string word(begin, at);
      for (char& c : word) c = ' ' < c && c <= '~' ? c : '?';
      fail(index, fmt::format("'{}' where number {} should be", word, out.size() + 1));
    }
    out.push_back(value);
  }
}

void TextLines::fail(std::int64_t index, std::string_view what) const {
  throw Error(fmt::format("{}:{}: {}", path_.string(), index + 1, what));
}

}  // namespace hax
