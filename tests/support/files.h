// Folders and files for tests.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hax::test {

/// A new empty folder; removed with everything in it.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  /// Names of what it holds, sorted.
  std::vector<std::string> names() const;

 private:
  std::filesystem::path path_;
};

/// Path of <name> in the source tree; without a name, of the tree.
std::string source_path(const std::string& name = "");
/// Path of the program under test.
std::string hax_binary();
/// Path of tests/fixtures/<name>.
std::string fixture_path(const std::string& name);
/// Names of all safetensors files in tests/fixtures, sorted.
std::vector<std::string> fixture_names();

}  // namespace hax::test
