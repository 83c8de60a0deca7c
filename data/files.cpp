#include "data/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/check.h"

namespace hax {
namespace {

[[noreturn]] void fail_on(std::string_view action, const std::filesystem::path& path) {
  throw Error(fmt::format("cannot {} {}: {}", action, path.string(), std::strerror(errno)));
}

}  // namespace

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)), partial_(path_) {
  partial_ += ".partial";
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_on("create", path_);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!published_) ::unlink(partial_.c_str());
}

void OutputFile::fail(std::string_view action) const { fail_on(action, path_); }

void OutputFile::reserve(std::int64_t bytes) {
#ifdef __linux__
  // File systems without this call find out while writing.
  if (bytes > 0 && ::fallocate(descriptor_, FALLOC_FL_KEEP_SIZE, 0, bytes) != 0 &&
      (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
    fail("write");
  }
#else
  (void)bytes;
#endif
}

void OutputFile::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write");
    size_ += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::overwrite(std::int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write");
    offset += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::finish() {
  if (::fsync(descriptor_) != 0) fail("write");
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("write");
}

void OutputFile::publish() {
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail("create");
  published_ = true;
}

OutputFolder::OutputFolder(std::filesystem::path path) : path_(std::move(path)) {
  const auto give_up = [this](std::string_view action, const std::filesystem::path& where) {
    const int reason = errno;
    remove_created();
    errno = reason;
    fail_on(action, where);
  };
  std::filesystem::path folder;
  for (const auto& name : std::filesystem::absolute(path_).lexically_normal()) {
    if (name.empty()) continue;  // "a/b/" ends with an empty name
    folder /= name;
    if (::mkdir(folder.c_str(), 0777) == 0) {
      created_.push_back(folder);
    } else if (struct stat status; errno != EEXIST && ::stat(folder.c_str(), &status) != 0) {
      give_up("create folder", folder);
    }
  }
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) give_up("open folder", path_);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor_);
    throw Error(fmt::format("{}: another process is writing here", path_.string()));
  }
}

OutputFolder::~OutputFolder() {
  if (descriptor_ >= 0) ::close(descriptor_);
  remove_created();
}

void OutputFolder::keep() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL) fail_on("write", path_);
  created_.clear();
}

void OutputFolder::remove_created() {
  for (; !created_.empty(); created_.pop_back()) ::rmdir(created_.back().c_str());
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_on("read", path);
  struct stat status;
  void* memory = nullptr;
  bool ok = ::fstat(descriptor, &status) == 0;
  if (ok && !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error(fmt::format("cannot read {}: not a file", path.string()));
  }
  if (ok && status.st_size > 0) {
    memory = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE,
                    descriptor, 0);
    ok = memory != MAP_FAILED;
  }
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  if (!ok) fail_on("read", path);
  if (memory != nullptr) {
    bytes_ = {static_cast<const std::byte*>(memory), static_cast<std::size_t>(status.st_size)};
  }
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

}  // namespace hax
