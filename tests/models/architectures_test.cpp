#include "models/architectures.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "engine/files.h"
#include "models/embedded_configs.h"
#include "models/model.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("the table of bases names exactly the configurations") {
  std::vector<std::string> files;
  for (const EmbeddedText& text : embedded_configs()) files.emplace_back(text.name);
  std::vector<std::string> names = base_arch_names();
  std::ranges::sort(files);
  std::ranges::sort(names);
  CHECK(names == files);
}

TEST_CASE("names are given once and their phrases fit beside a flag") {
  const std::vector<std::string> bases = base_arch_names(), branches = sparse_arch_names();
  CHECK(std::set<std::string>(bases.begin(), bases.end()).size() == bases.size());
  CHECK(std::set<std::string>(branches.begin(), branches.end()).size() == branches.size());
  for (const BaseArch& base : base_archs()) CHECK(!base.what.empty());
  for (const SparseArch& sparse : sparse_archs()) CHECK(!sparse.sees.empty());
  CHECK(base_arch_lines().find("\nmamba2       Mamba2: ") != std::string::npos);
  CHECK(sparse_arch_lines().starts_with("none                        no sparse branch\n"));
}

TEST_CASE("every base with a scan carries every branch, one without carries none") {
  int pairs = 0;
  for (const std::string& base : base_arch_names()) {
    const ModelConfig plain = named_config(base, "none");
    CHECK(plain.has_scan() == (base != "transformer"));
    for (const std::string& sparse : sparse_arch_names()) {
      INFO(base << " with " << sparse);
      const std::string error = error_of([&] {
        const Model model(named_config(base, sparse));
        CHECK(model.parameters().count() >= Model(plain).parameters().count());
      });
      CHECK((error == "") == (plain.has_scan() || sparse == "none"));
      ++pairs;
    }
  }
  CHECK(pairs == 60);
}

TEST_CASE("which branches look at the content") {
  std::vector<std::string> found;
  for (const SparseArch& sparse : sparse_archs()) {
    if (sparse.by_content) found.emplace_back(sparse.name);
  }
  CHECK(found == std::vector<std::string>{"argmax_lsh", "sign_bin_lsh", "key_selection",
                                          "sign_bin_lsh+key_selection"});
}

TEST_CASE("the README holds the tables as hax list --markdown prints them") {
  const std::string readme = read_file(hax::test::source_path("README.md"));
  const std::string begin = "<!-- hax list --markdown -->\n", end = "<!-- end -->\n";
  const std::size_t from = readme.find(begin), to = readme.find(end);
  REQUIRE(from != std::string::npos);
  REQUIRE(to != std::string::npos);
  CHECK(readme.find(begin, from + 1) == std::string::npos);
  CHECK(readme.substr(from + begin.size(), to - from - begin.size()) == architectures_markdown());
}
