#include "train/run_files.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "engine/files.h"

namespace hax {
namespace {

struct Kept {
  std::string text;
  std::int64_t damaged = 0, first_damaged = 0;  // lines, counted from 1
};

// What a run that stands at `step` would have written.
Kept kept_lines(const std::string& text, std::int64_t step, std::int64_t validated_step) {
  Kept kept;
  std::size_t begin = 0;
  for (std::int64_t number = 1; begin < text.size(); ++number) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn: the run was killed while writing
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number()) {
      if (kept.damaged++ == 0) kept.first_damaged = number;
      continue;
    }
    const bool validation = json.contains("valid_accuracy");
    if (json["step"] > (validation ? validated_step : step)) continue;
    if (!json.contains("test_accuracy")) kept.text += line + "\n";
  }
  return kept;
}

const std::filesystem::path& trimmed(const std::filesystem::path& path, std::int64_t step,
                                     std::int64_t validated_step, std::string* damage) {
  std::string what;
  if (std::filesystem::exists(path)) {
    const std::string text = read_file(path.string());
    const Kept kept = kept_lines(text, step, validated_step);
    if (kept.text != text) write_file_atomically(path.string(), kept.text);
    if (kept.damaged == 1) {
      what = fmt::format("{}: line {} could not be read and was left out", path.string(),
                         kept.first_damaged);
    } else if (kept.damaged > 1) {
      what = fmt::format("{}: {} lines, from line {} on, could not be read and were left out",
                         path.string(), kept.damaged, kept.first_damaged);
    }
  } else if (step > 0) {
    what = fmt::format("{}: missing; it goes on with step {}, earlier lines are lost",
                       path.string(), step + 1);
  }
  if (damage != nullptr) *damage = what;
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

FolderLock::FolderLock(const std::filesystem::path& folder)
    : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  check(folder_.number() >= 0, "cannot open {}: {}", folder.string(), std::strerror(errno));
  check(::flock(folder_.number(), LOCK_EX | LOCK_NB) == 0,
        "{} is in use: another process trains there", folder.string());
}

MetricsFile::MetricsFile(const std::filesystem::path& path, std::int64_t step,
                         std::int64_t validated_step, std::string* damage)
    : file_(trimmed(path, step, validated_step, damage)) {}

}  // namespace hax
