// A text file as numbered lines of integers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/files.h"
#include "engine/check.h"

namespace hax {

class TextLines {
 public:
  explicit TextLines(const std::filesystem::path& path);

  std::int64_t count() const { return static_cast<std::int64_t>(begins_.size()) - 1; }
  const std::filesystem::path& path() const { return path_; }
  /// Line `index`, from 0, without its end.
  std::string_view line(std::int64_t index) const;
  /// The integers of a line. Throws Error "file:line: what" for anything else in it.
  void numbers(std::int64_t index, std::vector<std::int32_t>& out) const;

  /// Throws Error "file:line: message" unless `ok`.
  template <class... Args>
  void check_line(bool ok, std::int64_t index, fmt::format_string<Args...> message,
                  Args&&... args) const {
    if (!ok) [[unlikely]]
      fail(index, fmt::format(message, std::forward<Args>(args)...));
  }
  [[noreturn]] void fail(std::int64_t index, std::string_view what) const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::vector<std::size_t> begins_;  // of every line, and the end
};

}  // namespace hax
