// Files that are whole or absent: written under another name, published by renaming; and read-only
// memory maps. Every failure is an Error with the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

/// A file under construction, `path` + ".partial". Disappears unless published.
class OutputFile {
 public:
  /// Creates the partial file, or empties one that a killed process left.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const { return size_; }
  /// Asks the file system for room at once, so that a full disk is known before the work.
  void reserve(std::int64_t bytes);
  void append(std::span<const std::byte> bytes);
  void append(std::string_view text) { append(std::as_bytes(std::span(text))); }
  /// Overwrites bytes written before.
  void overwrite(std::int64_t offset, std::span<const std::byte> bytes);
  /// Everything is on the disk after this; nothing can be appended.
  void finish();
  /// Gives the finished file its name, replacing one that has it.
  void publish();

 private:
  [[noreturn]] void fail(std::string_view action) const;

  std::filesystem::path path_, partial_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
  bool published_ = false;
};

/// A folder that files are being written to. Locked against a second writer; folders created for it
/// disappear again, when empty, unless keep() is called.
class OutputFolder {
 public:
  /// Creates what is missing of the path.
  explicit OutputFolder(std::filesystem::path path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Puts the folder's entries on the disk and keeps the folder.
  void keep();

 private:
  void remove_created();

  std::filesystem::path path_;
  std::vector<std::filesystem::path> created_;  // outermost first
  int descriptor_ = -1;
};

/// A whole file in memory, read-only.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace hax
