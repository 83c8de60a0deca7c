// Folders that clean up after themselves, files as strings, and running the hax binary.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "data/sample_source.h"
#include "tests/support/files.h"

namespace hax::test {

namespace fs = std::filesystem;

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<std::int32_t> sample_of(const SampleSource& source, std::int64_t index) {
  std::vector<std::int32_t> tokens;
  source.sample(index, tokens);
  return tokens;
}

struct RunResult {
  int code = 0;
  std::string out, err;
};

/// Runs `hax ARGUMENTS` through the shell.
inline RunResult run_hax(const std::string& arguments) {
  const TempFolder folder;
  const std::string out = (folder / "out").string(), err = (folder / "err").string();
  const int status =
      std::system(("'" + hax_binary() + "' " + arguments + " >" + out + " 2>" + err).c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(out), read_file(err)};
}

}  // namespace hax::test
