// hax list, and the help texts that come from the same table.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "models/architectures.h"
#include "models/costs.h"
#include "models/model.h"
#include "tests/support/command.h"

using namespace hax;
using namespace hax::test;

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Characters, not bytes.
std::size_t columns(const std::string& line) {
  std::size_t count = 0;
  for (const char c : line) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

}  // namespace

TEST_CASE("hax list names every architecture with its costs, in 100 columns") {
  const CommandResult result = run_hax({"list"});
  CHECK(result.code == 0);
  std::size_t rows = 0;
  std::string hax;
  for (const std::string& line : lines_of(result.out)) {
    INFO(line);
    CHECK(columns(line) <= 100);
    std::istringstream words(line);
    std::string base, sparse;
    words >> base >> sparse;
    const std::vector<std::string> bases = base_arch_names(), branches = sparse_arch_names();
    if (std::ranges::count(bases, base) == 0 || std::ranges::count(branches, sparse) == 0) continue;
    ++rows;
    if (base == "mamba" && sparse == "sign_bin_lsh+key_selection") hax = line;
  }
  CHECK(rows == 51);
  // parameters, keys, 4 (4864 + 2 x 1058 x 147 + 96) / 1024 KiB
  CHECK(hax.find(" HAX                    86658       64     1234.4 ") != std::string::npos);
}

TEST_CASE("hax list --json has the exact numbers") {
  const CommandResult result =
      run_hax({"list", "--json", "--length", "500", "--sparse_keys", "16"});
  REQUIRE(result.code == 0);
  const nlohmann::json rows = nlohmann::json::parse(result.out);
  CHECK(rows.size() == 51);
  for (const nlohmann::json& row : rows) {
    INFO(row.dump());
    ModelConfig config = named_config(row.at("base_arch").get<std::string>(),
                                      row.at("sparse_arch").get<std::string>());
    config.sparse_keys = 16;
    config.resolve();
    CHECK(row.at("length") == 500);
    CHECK(row.at("sparse_keys") == 16);
    CHECK(row.at("parameters") == Model(config).parameters().count());
    CHECK(row.at("keys_per_query") == most_visible_keys(config, 500));
    CHECK(row.at("state_numbers") == state_numbers(config, 500));
    CHECK(row.at("flops_per_token") == flops_per_token(config, 500));
    std::int64_t state = 0;
    for (const auto& [name, numbers] : row.at("state").items())
      state += numbers.get<std::int64_t>();
    CHECK(state == row.at("state_numbers"));
    double work = 0;
    for (const auto& [name, flops] : row.at("flops").items()) work += flops.get<double>();
    CHECK(work == doctest::Approx(row.at("flops_per_token").get<double>()));
  }
}

TEST_CASE("hax list --markdown prints the README's tables") {
  const CommandResult result = run_hax({"list", "--markdown"});
  CHECK(result.code == 0);
  CHECK(result.out == architectures_markdown());
}

TEST_CASE("hax list refuses what cannot be told") {
  const auto refused = [](std::vector<std::string> flags, const std::string& error) {
    flags.insert(flags.begin(), "list");
    const CommandResult result = run_hax(flags);
    CHECK(result.code == 2);
    CHECK(result.out == "");
    CHECK(result.err == "hax: " + error + "\n");
  };
  refused({"--length", "0"}, "--length '0': expected a whole number from 1 to 1073741824");
  refused({"--length", "many"}, "--length 'many': expected a whole number from 1 to 1073741824");
  refused({"--sparse_keys", "1"},
          "mamba with sliding_window+dilated: sparse_keys is 1, expected an integer from 2 to "
          "1073741824");
  refused({"--sparse_keys", "4096"},
          "mamba with dilated: data_max_length is 2048, expected at least the 4096 keys of the "
          "dilated pattern");
  refused({"--json", "--markdown"}, "--json excludes --markdown (see hax --help)");
}

TEST_CASE("hax train --help tells every architecture, in 100 columns") {
  const CommandResult result = run_hax({"train", "--help"});
  CHECK(result.code == 0);
  for (const std::string& line : lines_of(result.out)) {
    INFO(line);
    CHECK(columns(line) <= 100);
  }
  for (const std::string& lines : {base_arch_lines(), sparse_arch_lines()}) {
    for (const std::string& line : lines_of(lines)) {
      INFO(line);
      CHECK(result.out.find("  " + line + "\n") != std::string::npos);
    }
  }
}
