// hax bench --device cuda: that it runs, and that its rows fit together. Figures of the emulation
// are those of no GPU; nothing here depends on how fast a device is.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/command.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;
using nlohmann::json;

namespace {

json rows_of(std::vector<std::string> args) {
  args.insert(args.begin(), "bench");
  args.insert(args.end(), {"--device", "cuda", "--quick", "--json", "--threads", "1"});
  const CommandResult result = run_hax(args);
  INFO(result.err);
  REQUIRE(result.code == 0);
  json rows = json::parse(result.out, nullptr, false);
  REQUIRE(rows.is_array());
  for (const json& row : rows) {
    CHECK((row.at("device") == "emulated") == cuda_is_emulated());
  }
  return rows;
}

}  // namespace

TEST_CASE("hax bench --device cuda without CUDA, and with words of the CPU's bench") {
  const auto refused = [](const std::string& part, const std::string& message) {
    const CommandResult result = run_hax({"bench", part, "--device", "cuda"});
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(result.err == "hax: " + message + "\n");
  };
  if (!kHasCuda) {
    return refused("ops", "--device cuda: this build has no CUDA backend; use --device cpu");
  }
  if (!cuda_is_here()) {
    const CommandResult result = run_hax({"bench", "ops", "--device", "cuda"});
    CHECK(result.code == 2);
    CHECK(result.err.starts_with("hax: --device cuda: "));
    CHECK(result.err.ends_with("; use --device cpu\n"));
    return;
  }
  refused("attention", "part 'attention' is about the CPU; with --device cuda there are machine");
  refused("machin", "unknown part 'machin'; did you mean 'machine'?");
}

TEST_CASE("hax bench machine --device cuda: a rate for every limit, and what a launch costs") {
  if (!cuda_is_here()) return;
  const json rows = rows_of({"machine"});
  const json& about = rows.at(0);
  CHECK(about.at("part") == "about");
  CHECK((about.at("note").get<std::string>().find("figures of no GPU") != std::string::npos) ==
        cuda_is_emulated());
  std::set<std::string> units;
  int rates = 0, launches = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const json& row = rows[i];
    INFO(row.dump());
    CHECK(row.at("part") == "machine");
    const double median = row.at("median_s"), fastest = row.at("fastest_s");
    CHECK(fastest > 0);
    CHECK(median >= fastest);
    if (row.contains("rate")) {
      ++rates;
      CHECK(row.at("rate").get<double>() > 0);
      CHECK(row.at("kernel").get<std::string>() != "");
      units.insert(row.at("unit"));
    } else {
      ++launches;
    }
  }
  CHECK(units == std::set<std::string>{"/s", "B/s", "FLOP/s"});
  CHECK(rates == 8);
  CHECK(launches == 2);
}
