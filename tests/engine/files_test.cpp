#include "engine/files.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "tests/support/compare.h"
#include "tests/support/files.h"

using namespace hax;
using namespace hax::test;
namespace fs = std::filesystem;

namespace {

std::string write_error(const std::string& path, std::string_view content) {
  return error_of([&] { write_file_atomically(path, content); });
}

// While alive, a file of this process may not grow past `bytes`: a full disk for writers.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    check(::setrlimit(RLIMIT_FSIZE, &limit) == 0, "cannot limit the size of files");
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

std::string any_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(i * 131 + (i >> 8));
  return bytes;
}

}  // namespace

TEST_CASE("files: what is written is read, whatever the bytes and the size") {
  const TempFolder folder;
  for (const std::size_t size : {0, 1, 4095, 4096, 4097, 8191, 8192, 1'000'000}) {
    const std::string content = any_bytes(size);
    write_file_atomically(folder / "file", content);
    CHECK(fs::file_size(folder / "file") == size);
    CHECK(read_file(folder / "file") == content);
  }
  CHECK(folder.names() == std::vector<std::string>{"file"});
}

TEST_CASE("files: pieces are written one after the other") {
  const TempFolder folder;
  const std::string first = "ab", second, third = "cde";
  std::vector<std::span<const std::byte>> pieces;
  for (const std::string* piece : {&first, &second, &third}) {
    pieces.push_back(std::as_bytes(std::span(*piece)));
  }
  write_file_atomically(folder / "file", pieces);
  CHECK(read_file(folder / "file") == "abcde");
  write_file_atomically(folder / "file", std::span<const std::span<const std::byte>>());
  CHECK(read_file(folder / "file").empty());
}

TEST_CASE("files: files of /proc, which say that they are empty, are read whole") {
  CHECK(read_file("/proc/self/status").find("\nPid:") != std::string::npos);
}

TEST_CASE("files: reading at an offset") {
  const TempFolder folder;
  write_file_atomically(folder / "file", "0123456789");
  const InputFile file(folder / "file");
  CHECK(file.size() == 10);
  CHECK(file.path() == folder / "file");
  std::string part(4, ' ');
  file.read(3, std::as_writable_bytes(std::span(part)));
  CHECK(part == "3456");
  file.read(10, {});
  CHECK(error_of([&] { file.read(7, std::as_writable_bytes(std::span(part))); }) ==
        "cannot read " + (folder / "file").string() +
            ": it ends at byte 10, 1 bytes were expected after it");
}

TEST_CASE("files: what cannot be read is named with the reason") {
  const TempFolder folder;
  const std::string none = folder / "none";
  CHECK(error_of([&] { read_file(none); }) ==
        "cannot read " + none + ": No such file or directory");
  CHECK(error_of([&] { InputFile{none}; }) ==
        "cannot read " + none + ": No such file or directory");
  CHECK(error_of([&] { read_file(folder.path()); }) ==
        "cannot read " + folder.path().string() + ": Is a directory");
  CHECK(error_of([&] { InputFile{folder.path()}; }) ==
        "cannot read " + folder.path().string() + ": not a regular file");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);  // must not wait for a writer
  CHECK(error_of([&] { InputFile{folder / "pipe"}; }) ==
        "cannot read " + (folder / "pipe").string() + ": not a regular file");
}

TEST_CASE("files: a full device is reported") {
  if (!fs::exists("/dev/full")) return;
  CHECK(write_error("/dev/full", "x") == "cannot write /dev/full: No space left on device");
  CHECK(fs::is_character_file("/dev/full"));  // written to, not replaced
}

TEST_CASE("files: a disk that fills up leaves the old file and nothing else") {
  const TempFolder folder;
  write_file_atomically(folder / "file", "old");
  std::string error, fresh;
  {
    const FileSizeLimit limit(100'000);
    error = write_error(folder / "file", any_bytes(300'000));
    fresh = write_error(folder / "fresh", any_bytes(300'000));
  }
  CHECK(error == "cannot write " + (folder / "file").string() + ": File too large");
  CHECK(fresh == "cannot write " + (folder / "fresh").string() + ": File too large");
  CHECK(read_file(folder / "file") == "old");
  CHECK(folder.names() == std::vector<std::string>{"file"});
}

TEST_CASE("files: a place where nothing can be written") {
  const TempFolder folder;
  write_file_atomically(folder / "file", "old");
  CHECK(write_error(folder / "file/inside", "x") ==
        "cannot write " + (folder / "file/inside").string() + ": Not a directory");
  CHECK(write_error(folder / "none/inside", "x") ==
        "cannot write " + (folder / "none/inside").string() + ": No such file or directory");
  CHECK(write_error(folder.path(), "x") ==
        "cannot write " + folder.path().string() + ": Is a directory");
  CHECK(write_error("", "x") == "cannot write : No such file or directory");
  CHECK(read_file(folder / "file") == "old");
  CHECK(folder.names() == std::vector<std::string>{"file"});
}

TEST_CASE("files: a write that fails at the last step leaves the old file and nothing else") {
  const TempFolder folder;
  // A name of 256 characters: the temporary file can be written, the rename is refused.
  const std::string long_name = folder / std::string(256, 'n');
  CHECK(write_error(long_name, "x") == "cannot write " + long_name + ": File name too long");
  CHECK(folder.names().empty());
}

TEST_CASE("files: a symbolic link stays, its target is replaced") {
  const TempFolder folder;
  make_directories(folder / "elsewhere");
  write_file_atomically(folder / "elsewhere/target", "old");
  fs::create_symlink("elsewhere/target", folder / "link");
  write_file_atomically(folder / "link", "new");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_file(folder / "elsewhere/target") == "new");
  CHECK(folder.names() == std::vector<std::string>{"elsewhere", "link"});
  fs::create_symlink("nowhere/target", folder / "broken");
  CHECK(write_error(folder / "broken", "x") ==
        "cannot write " + (folder / "broken").string() + ": No such file or directory");
}

TEST_CASE("files: permissions of an existing file stay, a new one follows the umask") {
  const TempFolder folder;
  const mode_t before = ::umask(027);
  write_file_atomically(folder / "file", "1");
  ::umask(before);
  CHECK(fs::status(folder / "file").permissions() == fs::perms(0640));
  fs::permissions(folder / "file", fs::perms(0604));
  write_file_atomically(folder / "file", "2");
  CHECK(fs::status(folder / "file").permissions() == fs::perms(0604));
  CHECK(read_file(folder / "file") == "2");
}

TEST_CASE("files: a relative path without a folder") {
  const TempFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  const std::string error = write_error("file", "x");
  fs::current_path(before);
  CHECK(error == "");
  CHECK(read_file(folder / "file") == "x");
}

TEST_CASE("files: a reader sees an old or a new file, never a mixture, while several write") {
  const TempFolder folder;
  constexpr std::size_t kSize = 50'000;
  write_file_atomically(folder / "file", std::string(kSize, 'a'));
  std::vector<std::thread> writers;
  for (const char letter : {'b', 'c'}) {
    writers.emplace_back([&folder, letter] {
      for (int i = 0; i < 20; ++i)
        write_file_atomically(folder / "file", std::string(kSize, letter));
    });
  }
  int torn = 0;
  for (int i = 0; i < 100; ++i) {
    const std::string content = read_file(folder / "file");
    torn += content != std::string(kSize, content.empty() ? '?' : content[0]);
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(torn == 0);
  CHECK(folder.names() == std::vector<std::string>{"file"});
}

TEST_CASE("files: folders are created with those above, and may exist") {
  const TempFolder folder;
  make_directories(folder / "a/b/c");
  CHECK(fs::is_directory(folder / "a/b/c"));
  make_directories(folder / "a/b/c");
  make_directories(folder / "a/b/c/");
  write_file_atomically(folder / "file", "x");
  CHECK(error_of([&] { make_directories(folder / "file"); }) ==
        "cannot create folder " + (folder / "file").string() + ": Not a directory");
  CHECK(error_of([&] { make_directories(folder / "file/below"); }) ==
        "cannot create folder " + (folder / "file/below").string() + ": Not a directory");
}
