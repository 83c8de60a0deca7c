#include "train/run_files.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "engine/files.h"

namespace hax {
namespace {

// Lines of steps up to `step`, as the resumed run would have left them.
std::string kept_lines(const std::string& text, std::int64_t step) {
  std::string kept;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn: the run was killed while writing
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || json.value("step", step + 1) > step) continue;
    if (!json.contains("test_accuracy")) kept += line + "\n";
  }
  return kept;
}

const std::filesystem::path& trimmed(const std::filesystem::path& path, std::int64_t step) {
  if (std::filesystem::exists(path)) {
    const std::string text = read_file(path.string()), kept = kept_lines(text, step);
    if (kept != text) write_file_atomically(path.string(), kept);
  }
  return path;
}

}  // namespace

LogFile::LogFile(const std::filesystem::path& path)
    : path_(path), file_(std::fopen(path.c_str(), "a")) {
  check(file_ != nullptr, "cannot write {}: {}", path.string(), std::strerror(errno));
}

void LogFile::append(const std::string& line) {
  const bool ok =
      std::fputs((line + "\n").c_str(), file_.get()) >= 0 && std::fflush(file_.get()) == 0;
  check(ok, "cannot write {}: {}", path_.string(), std::strerror(errno));
}

MetricsFile::MetricsFile(const std::filesystem::path& path, std::int64_t step)
    : file_(trimmed(path, step)) {}

}  // namespace hax
