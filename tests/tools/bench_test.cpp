// hax bench: the statistics behind its rows, and what it prints. Nothing here depends on how fast
// the machine is.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "data/joint_recall.h"
#include "tests/support/command.h"
#include "tests/support/compare.h"
#include "tools/bench/statistics.h"

using namespace hax;
using namespace hax::test;
using nlohmann::json;

namespace {

json rows_of(const std::vector<std::string>& args) {
  const CommandResult result = run_hax(args);
  INFO(result.err);
  REQUIRE(result.code == 0);
  const json rows = json::parse(result.out, nullptr, false);
  REQUIRE(rows.is_array());
  return rows;
}

const json& row_named(const json& rows, const std::string& part, const std::string& name) {
  for (const json& row : rows) {
    if (row.at("part") == part && row.at("name") == name) return row;
  }
  FAIL("no row " << name);
  return rows.front();
}

}  // namespace

TEST_CASE("median") {
  CHECK(bench::median({3}) == 3);
  CHECK(bench::median({9, 1, 5}) == 5);
  CHECK(bench::median({9, 1, 5, 6}) == 5.5);
  CHECK(error_of([] { bench::median({}); }) == "median of nothing");
}

TEST_CASE("the slope of log time over log length") {
  const std::vector<double> x{1000, 4000, 64000};
  std::vector<double> y;
  for (const double value : x) y.push_back(3e-9 * std::pow(value, 1.7));
  CHECK(bench::log_slope(x, y) == doctest::Approx(1.7));
  // One point off the line: the least-squares slope of (0, 0), (1, 1), (2, 0).
  const double e = std::exp(1.0);
  CHECK(bench::log_slope(std::vector{1.0, e, e * e}, std::vector{1.0, e, 1.0}) ==
        doctest::Approx(0).scale(1));
  CHECK(error_of([&] { bench::log_slope(std::vector{1.0}, std::vector{1.0}); }) != "");
  CHECK(error_of([&] { bench::log_slope(std::vector{1.0, 2.0}, std::vector{1.0}); }) != "");
  CHECK(error_of([&] { bench::log_slope(std::vector{2.0, 2.0}, std::vector{1.0, 3.0}); }) != "");
  CHECK(error_of([&] { bench::log_slope(std::vector{1.0, 2.0}, std::vector{0.0, 3.0}); }) != "");
}

TEST_CASE("pairs are run in turn and compared pair by pair") {
  std::string order;
  const bench::Pair pair = bench::measure_pair(
      {.seconds = 0, .runs = 3}, [&] { order += 'a'; }, [&] { order += 'b'; });
  CHECK(order == "abababab");  // one of each to warm up
  CHECK(pair.a.runs == 3);
  CHECK(pair.b.runs == 3);
  CHECK(pair.ratio > 0);
  int runs = 0;
  CHECK(bench::measure({.seconds = 0, .runs = 5}, [&] { ++runs; }).runs == 5);
  CHECK(runs == 6);
}

TEST_CASE("hax bench machine gives a rate for every limit, on one thread and on two") {
  const json rows = rows_of({"bench", "machine", "--quick", "--json", "--threads", "2"});
  CHECK(rows.at(0).at("part") == "about");
  CHECK(rows.at(0).at("threads") == 2);
  std::set<std::string> names;
  int on_two = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const json& row = rows[i];
    INFO(row.dump());
    CHECK(row.at("part") == "machine");
    CHECK(row.at("rate").get<double>() > 1e6);
    CHECK(row.at("median_s").get<double>() >= row.at("fastest_s").get<double>());
    CHECK(row.at("fastest_s").get<double>() > 0);
    CHECK(row.at("runs").get<int>() >= 2);
    CHECK(row.at("kernel").get<std::string>() != "");
    names.insert(row.at("name"));
    if (row.at("threads") == 2) ++on_two;
  }
  CHECK(names.size() == 7);
  CHECK(on_two == 7);
  CHECK(rows.size() == 15);
}

TEST_CASE("hax bench step: floors, ratios and a note of what was not measured") {
  const json rows = rows_of(
      {"bench", "step", "--quick", "--json", "--threads", "1", "--arch", "mamba", "--bsz", "2"});
  const json& step = row_named(rows, "step", "mamba");
  INFO(step.dump());
  // Two samples a batch: the 1st, 37th and 72nd of the 72 after which the sizes repeat.
  const JointRecallTask task;
  std::vector<std::int64_t> tokens;
  double mean = 0;
  for (const std::int64_t batch : {0, 36, 71}) {
    tokens.push_back(task.length(task.sizes(2 * batch)) + task.length(task.sizes(2 * batch + 1)) -
                     2);
    mean += static_cast<double>(tokens.back()) / 3;
  }
  CHECK(step.at("parameters") == 73920);
  CHECK(step.at("tokens").get<double>() == doctest::Approx(mean));
  const double median = step.at("median_s"), floor = step.at("floor_s");
  CHECK(step.at("ratio").get<double>() == doctest::Approx(median / floor));
  CHECK(floor < step.at("floor_full_s").get<double>());
  CHECK(step.at("tokens_per_s").get<double>() ==
        doctest::Approx(step.at("tokens").get<double>() / median));
  CHECK(step.at("resident_bytes").get<double>() > step.at("bytes").get<double>());
  // 400,000 steps and 800 validations.
  CHECK(step.at("hours").get<double>() > 400000 * median / 3600);
  CHECK(step.at("hours").get<double>() < 2 * 400000 * median / 3600);
  const json& padded = row_named(rows, "step", "mamba, padded");
  CHECK(padded.at("speedup").get<double>() > 0);
  CHECK(padded.at("tokens") == tokens[1]);
  CHECK(rows.dump().find("whole table") == std::string::npos);

  const json scaling = rows_of({"bench", "scaling", "--quick", "--json", "--threads", "1"});
  CHECK(row_named(scaling, "scaling", "scaling").at("skipped") == "there is one thread only");
}

TEST_CASE("wrong words after hax bench") {
  const auto refused = [](std::vector<std::string> args, const std::string& message) {
    args.insert(args.begin(), "bench");
    const CommandResult result = run_hax(args);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(result.err == "hax: " + message + "\n");
  };
  refused({"sttep"}, "unknown part 'sttep'; did you mean 'step'?");
  refused({"--qick"}, "unknown flag --qick; did you mean '--quick'?");
  refused({"step", "--arch", "mmba"}, "unknown base_arch 'mmba'; did you mean 'mamba'?");
  refused({"step", "--arch", "mamba+key_selectoin"},
          "unknown sparse_arch 'key_selectoin'; did you mean 'key_selection'?");
  refused({"--arch", "transformer+full", "machine"},
          "sparse_arch is full, expected none: every layer of this transformer is attention, there "
          "is no scan for a sparse branch to join");
  refused({"--threads", "two"}, "--threads 'two': expected a whole number from 0 to 1024");
}
