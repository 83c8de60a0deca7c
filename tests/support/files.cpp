#include "tests/support/files.h"

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "engine/check.h"

namespace hax::test {
namespace fs = std::filesystem;

namespace {

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace

TempFolder::TempFolder() {
  std::string name = fs::temp_directory_path() / "hax-test-XXXXXX";
  check(::mkdtemp(name.data()) != nullptr, "cannot create {}: {}", name,
        std::generic_category().message(errno));
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::vector<std::string> TempFolder::names() const { return names_in(path_); }

std::string source_path(const std::string& name) { return HAX_SOURCE_DIR "/" + name; }

std::string hax_binary() { return HAX_BINARY; }

std::string fixture_path(const std::string& name) { return source_path("tests/fixtures/" + name); }

std::vector<std::string> fixture_names() {
  std::vector<std::string> names = names_in(fixture_path(""));
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(".safetensors"); });
  return names;
}

}  // namespace hax::test
