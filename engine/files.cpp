#include "engine/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "engine/check.h"

namespace hax {
namespace {

// Linux moves at most 2 GiB in one call; other systems refuse more.
constexpr std::size_t kLargestTransfer = std::size_t{1} << 30;

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail(std::string_view action, const std::string& path, int error) {
  throw Error(fmt::format("cannot {} {}: {}", action, path, reason(error)));
}

// Repeats a system call that a signal interrupted.
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

FileDescriptor open_file(const std::string& path, int flags, mode_t mode = 0) {
  return FileDescriptor(retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); }));
}

void write_all(int file, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = retry(
        [&] { return ::write(file, bytes.data(), std::min(bytes.size(), kLargestTransfer)); });
    if (written <= 0) fail("write", path, written < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void flush(int file, const std::string& path) {
  // EINVAL and ENOTSUP: a kind of file, or a file system, that has nothing to flush.
  if (retry([&] { return ::fsync(file); }) != 0 && errno != EINVAL && errno != ENOTSUP) {
    fail("write", path, errno);
  }
}

void close_checked(FileDescriptor& file, const std::string& path) {
  if (!file.close()) fail("write", path, errno);
}

void write_pieces(FileDescriptor& file, std::span<const std::span<const std::byte>> pieces,
                  const std::string& path) {
  for (const std::span<const std::byte> piece : pieces) write_all(file.number(), piece, path);
  flush(file.number(), path);
  close_checked(file, path);
}

// A new file beside the one that it will replace; removed unless it was renamed.
class TemporaryFile {
 public:
  TemporaryFile(const std::filesystem::path& target, std::optional<mode_t> permissions) {
    static std::atomic<unsigned> counter = 0;
    do {
      name_ = target.parent_path() / fmt::format(".hax-{}-{}.tmp", ::getpid(), counter++);
      file_.emplace(open_file(name_, O_WRONLY | O_CREAT | O_EXCL, 0666));
    } while (file_->number() < 0 && errno == EEXIST);
    if (file_->number() < 0) {
      const int error = errno;
      name_.clear();
      fail("write", target, error);
    }
    if (permissions && ::fchmod(file_->number(), *permissions) != 0) {
      const int error = errno;
      ::unlink(name_.c_str());
      fail("write", target, error);
    }
  }
  ~TemporaryFile() {
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  FileDescriptor& file() { return *file_; }
  void rename_to(const std::string& target) {
    if (::rename(name_.c_str(), target.c_str()) != 0) fail("write", target, errno);
    name_.clear();
  }

 private:
  std::string name_;
  std::optional<FileDescriptor> file_;
};

// The rename itself is on the disk only once its folder is.
void flush_folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const FileDescriptor file = open_file(folder, O_RDONLY | O_DIRECTORY);
  if (file.number() < 0) fail("flush the folder of", path, errno);
  flush(file.number(), path);
}

}  // namespace

FileDescriptor::~FileDescriptor() { close(); }
FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : number_(std::exchange(other.number_, -1)) {}

bool FileDescriptor::close() {
  if (number_ < 0) return true;
  // Not repeated after EINTR: the number is free by then and may belong to another file.
  return ::close(std::exchange(number_, -1)) == 0 || errno == EINTR;
}

InputFile::InputFile(const std::string& path)
    // Without O_NONBLOCK opening a pipe would wait for its writer; a regular file ignores it.
    : path_(path), file_(open_file(path, O_RDONLY | O_NONBLOCK)) {
  struct stat status {};
  if (file_.number() < 0 || ::fstat(file_.number(), &status) != 0) fail("read", path, errno);
  check(S_ISREG(status.st_mode), "cannot read {}: not a regular file", path);
  size_ = status.st_size;
}

void InputFile::read(std::int64_t offset, std::span<std::byte> destination) const {
  while (!destination.empty()) {
    const ssize_t count = retry([&] {
      return ::pread(file_.number(), destination.data(),
                     std::min(destination.size(), kLargestTransfer), offset);
    });
    if (count < 0) fail("read", path_, errno);
    check(count != 0, "cannot read {}: it ends at byte {}, {} bytes were expected after it", path_,
          offset, destination.size());
    destination = destination.subspan(static_cast<std::size_t>(count));
    offset += count;
  }
}

std::string read_file(const std::string& path) {
  const FileDescriptor file = open_file(path, O_RDONLY);
  struct stat status {};
  if (file.number() < 0 || ::fstat(file.number(), &status) != 0) fail("read", path, errno);
  std::string content;
  std::size_t size = 0;
  // One byte more than the size known, so that the end is seen without growing; files of /proc say
  // 0.
  content.resize(std::max<std::size_t>(static_cast<std::size_t>(status.st_size) + 1, 4096));
  while (true) {
    const ssize_t count = retry([&] {
      return ::read(file.number(), content.data() + size,
                    std::min(content.size() - size, kLargestTransfer));
    });
    if (count < 0) fail("read", path, errno);
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
    if (size == content.size()) content.resize(2 * size);
  }
  content.resize(size);
  return content;
}

void write_file_atomically(const std::string& path,
                           std::span<const std::span<const std::byte>> pieces) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  const std::filesystem::file_type kind = status.type();
  if (kind == std::filesystem::file_type::directory) fail("write", path, EISDIR);
  if (kind != std::filesystem::file_type::regular &&
      kind != std::filesystem::file_type::not_found && kind != std::filesystem::file_type::none) {
    FileDescriptor file = open_file(path, O_WRONLY);
    if (file.number() < 0) fail("write", path, errno);
    return write_pieces(file, pieces, path);
  }
  std::string target = path;
  if (std::filesystem::is_symlink(path, error)) {
    target = std::filesystem::canonical(path, error);
    if (error) fail("write", path, error.value());
  }
  std::optional<mode_t> permissions;
  if (std::filesystem::exists(status)) permissions = static_cast<mode_t>(status.permissions());
  TemporaryFile temporary(target, permissions);
  write_pieces(temporary.file(), pieces, path);
  temporary.rename_to(target);
  flush_folder_of(target);
}

void write_file_atomically(const std::string& path, std::string_view content) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(content));
  write_file_atomically(path, std::span(&piece, 1));
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail("create folder", path, error.value());
  check(std::filesystem::is_directory(path, error),
        "cannot create folder {}: something else has that name", path);
}

}  // namespace hax
