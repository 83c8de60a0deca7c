// The files of a run folder that grow: metrics.jsonl and log.txt.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/files.h"

namespace hax {

/// Keeps other processes from writing into a run folder while alive.
class FolderLock {
 public:
  /// Throws Error when another process holds the folder, or it cannot be opened.
  explicit FolderLock(const std::filesystem::path& folder);

 private:
  FileDescriptor folder_;
};

/// A file that lines are appended to; every write is checked and flushed.
class LogFile {
 public:
  /// Throws Error when the file cannot be opened.
  explicit LogFile(const std::filesystem::path& path);
  std::FILE* handle() const { return file_.get(); }
  /// Throws Error when the line cannot be written.
  void append(const std::string& line);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// metrics.jsonl: one JSON object a line, nothing in it depends on the clock. On opening, lines
/// that a run resumed at `step`, last validated at `validated_step`, will write again (later steps
/// and validations, the final test, a torn last line)
/// are dropped. Lines before these that cannot be read are dropped too, and `damage`, where given,
/// says which; also when a resumed run has no such file.
class MetricsFile {
 public:
  MetricsFile(const std::filesystem::path& path, std::int64_t step, std::int64_t validated_step,
              std::string* damage = nullptr);
  void append(const std::string& line) { file_.append(line); }

 private:
  LogFile file_;
};

}  // namespace hax
