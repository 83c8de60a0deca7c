// Folders and files for tests.
#pragma once

#include <string>
#include <vector>

namespace hax::test {

/// A new empty folder; removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  /// path()/name
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  /// Names of what it holds, sorted.
  std::vector<std::string> names() const;

 private:
  std::string path_;
};

/// Path of tests/fixtures/<name>.
std::string fixture_path(const std::string& name);
/// Names of all safetensors files in tests/fixtures, sorted.
std::vector<std::string> fixture_names();

}  // namespace hax::test
