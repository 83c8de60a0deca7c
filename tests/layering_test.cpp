// The folders depend on each other in one direction only (docs/conventions.md); this reads every
// #include of the tree.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "engine/files.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"

using namespace hax;
namespace fs = std::filesystem;

namespace {

const std::map<std::string, std::set<std::string>>& may_include() {
  static const std::map<std::string, std::set<std::string>> folders{
      {"engine", {"engine"}},
      {"ops", {"engine", "ops"}},
      {"models", {"engine", "ops", "models"}},
      {"data", {"engine", "data"}},
      {"train", {"engine", "ops", "models", "data", "train"}},
      {"tools", {"engine", "ops", "models", "data", "train", "tools"}},
      {"tests", {"engine", "ops", "models", "data", "train", "tools", "tests"}},
  };
  return folders;
}

// Nobody who includes one of our headers should need these.
const std::regex& kept_out_of_headers() {
  static const std::regex names("^(Eigen/|unsupported/|nlohmann/|cuda|cublas|curand|cub/|nccl)");
  return names;
}

// What is wrong with the includes of one file; `exists` tells whether a root-relative path does.
template <class Exists>
std::vector<std::string> violations(const std::string& file, const std::string& text,
                                    Exists exists) {
  static const std::regex include(R"(^\s*#\s*include\s*(["<])([^">]+)[">])");
  const std::string folder = file.substr(0, file.find('/'));
  const bool is_public_header = file.ends_with(".h") && folder != "tests" && folder != "tools";
  std::vector<std::string> found;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::smatch match;
    if (!std::regex_search(line, match, include)) continue;
    const std::string target = match[2];
    const auto report = [&](const std::string& what) {
      found.push_back(fmt::format("{}:{}: {} {}", file, number, target, what));
    };
    if (match[1] == "\"") {
      const std::string from = target.substr(0, target.find('/'));
      if (!exists(target)) {
        report("is no file of this tree (includes are relative to its root)");
      } else if (!may_include().at(folder).contains(from)) {
        report("is above " + folder);
      }
    } else if (may_include().contains(target.substr(0, target.find('/')))) {
      report("is one of our files, write it in quotes");
    }
    if (is_public_header && match[1] == "<" && std::regex_search(target, kept_out_of_headers())) {
      report("in a header that others include");
    }
  }
  return found;
}

bool is_source(const fs::path& path) {
  static const std::set<std::string> endings{".h", ".cpp", ".cu", ".cuh", ".in"};
  return endings.contains(path.extension());
}

}  // namespace

TEST_CASE(
    "includes run one way: engine <- ops <- models <- train <- tools, data sees engine only") {
  const fs::path root = hax::test::source_path();
  std::map<std::string, int> files;
  std::vector<std::string> found;
  for (const auto& [folder, ignored] : may_include()) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      ++files[folder];
      const std::string name = fs::relative(entry.path(), root);
      for (const std::string& what : violations(
               name, read_file(entry.path()),
               [&](const std::string& target) { return fs::is_regular_file(root / target); })) {
        found.push_back(what);
      }
    }
  }
  // Were the walk to find nothing, it would find nothing wrong.
  CHECK(files["engine"] >= 20);
  CHECK(files["ops"] >= 10);
  CHECK(files["tests"] >= 8);
  CHECK(fmt::format("{}", fmt::join(found, "\n")) == "");
}

TEST_CASE("the include check notices every kind of violation") {
  const auto wrong = [](const std::string& file, const std::string& line) {
    return violations(file, "#pragma once\n" + line + "\n",
                      [](const std::string& target) { return target != "engine/none.h"; });
  };
  CHECK(wrong("engine/a.cpp", "#include \"ops/gradcheck.h\"") ==
        std::vector<std::string>{"engine/a.cpp:2: ops/gradcheck.h is above engine"});
  CHECK(wrong("ops/a.cpp", "#include \"models/m.h\"").size() == 1);
  CHECK(wrong("ops/a.cpp", "#include \"data/d.h\"").size() == 1);
  CHECK(wrong("data/a.h", "#include \"ops/gradcheck.h\"").size() == 1);
  CHECK(wrong("models/a.h", "#include \"data/d.h\"").size() == 1);
  CHECK(wrong("models/a.h", "  #  include \"train/t.h\"").size() == 1);
  CHECK(wrong("train/a.h", "#include \"tools/t.h\"").size() == 1);
  CHECK(wrong("tools/a.cpp", "#include \"tests/support/compare.h\"").size() == 1);
  CHECK(wrong("engine/a.cpp", "#include \"engine/none.h\"").size() == 1);
  CHECK(wrong("engine/a.cpp", "#include <engine/tensor.h>").size() == 1);
  CHECK(wrong("engine/a.h", "#include <nlohmann/json.hpp>").size() == 1);
  CHECK(wrong("ops/a.h", "#include <Eigen/Dense>").size() == 1);
  CHECK(wrong("train/a.h", "#include <cuda_runtime.h>").size() == 1);

  CHECK(wrong("engine/a.cpp", "#include <nlohmann/json.hpp>").empty());
  CHECK(wrong("ops/a.cpp", "#include <Eigen/Dense>").empty());
  CHECK(wrong("ops/a.h", "#include \"engine/tensor.h\"").empty());
  CHECK(wrong("ops/a.h", "// #include \"tools/t.h\"").empty());
  CHECK(wrong("train/a.h", "#include \"data/d.h\"").empty());
  CHECK(wrong("tools/a.cpp", "#include \"data/d.h\"").empty());
  CHECK(wrong("tests/a.h", "#include \"tools/t.h\"").empty());
  CHECK(wrong("engine/a.h", "#include <vector>").empty());
}

TEST_CASE("names of test cases are such that ctest can list them") {
  // CMake's lists come apart at a semicolon and run together at a square bracket.
  static const std::regex name(R"re(TEST_CASE\w*\("([^"]*)")re");
  int names = 0;
  for (const auto& entry : fs::recursive_directory_iterator(hax::test::source_path("tests"))) {
    if (!entry.path().string().ends_with("_test.cpp")) continue;
    const std::string text = read_file(entry.path());
    for (std::sregex_iterator match(text.begin(), text.end(), name), end; match != end; ++match) {
      ++names;
      INFO(entry.path().string() << ": " << match->str(1));
      CHECK(match->str(1).find_first_of("[];\\") == std::string::npos);
    }
  }
  CHECK(names >= 100);
}
