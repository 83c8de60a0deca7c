// Files: reads that notice everything that can go wrong, and writes that happen completely or not
// at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace hax {

/// An open file; closes itself.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number = -1) : number_(number) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&&) = delete;

  int number() const { return number_; }
  /// Closes now; false when the system reports an error (errno holds it).
  bool close();

 private:
  int number_;
};

/// A regular file opened for reading anywhere. Every member throws Error naming the path.
class InputFile {
 public:
  explicit InputFile(const std::string& path);

  const std::string& path() const { return path_; }
  /// Bytes when it was opened.
  std::int64_t size() const { return size_; }
  /// Fills `destination` from byte `offset` on. Throws Error when the file ends before.
  void read(std::int64_t offset, std::span<std::byte> destination) const;

 private:
  std::string path_;
  FileDescriptor file_;
  std::int64_t size_ = 0;
};

/// The whole content of a file (or of a pipe, until it ends). Throws Error naming the path and the
/// system's reason.
std::string read_file(const std::string& path);

/// Makes `pieces`, one after the other, the content of `path`. They are written to a temporary file
/// in the same folder, flushed to the disk and renamed: at any moment, a crash included, `path` is
/// either the old file or the new one. Permissions of an existing file stay. A symbolic link stays
/// and its target is replaced; a device or a pipe is written directly. Throws Error naming the path
/// and the system's reason, with the old file intact and the temporary file removed.
void write_file_atomically(const std::string& path,
                           std::span<const std::span<const std::byte>> pieces);
void write_file_atomically(const std::string& path, std::string_view content);

/// Creates a folder and those above it; fine when it exists. Throws Error naming the path.
void make_directories(const std::string& path);

}  // namespace hax
