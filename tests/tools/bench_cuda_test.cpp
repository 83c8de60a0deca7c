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

const json& row_named(const json& rows, const std::string& name) {
  for (const json& row : rows) {
    if (row.at("name") == name) return row;
  }
  FAIL("no row " << name);
  return rows.front();
}

// The fastest copy and float32 product among the limits.
struct Rates {
  double copy = 0, product = 0;

  explicit Rates(const json& rows) {
    for (const json& row : rows) {
      if (row.at("part") != "machine" || !row.contains("rate")) continue;
      const std::string name = row.at("name");
      const double rate = row.at("rate");
      if (name.starts_with("copy")) copy = std::max(copy, rate);
      if (name.ends_with("float32")) product = std::max(product, rate);
    }
  }
};

// Whatever a row is about: counts are positive, and shares are what follows from counts and time.
void check_counts(const json& row, const Rates& rates) {
  INFO(row.dump());
  REQUIRE(!row.contains("skipped"));
  const double median = row.at("median_s"), moved = row.at("moved_bytes"), flops = row.at("flops"),
               copy = row.at("copy_share"), product = row.at("product_share");
  CHECK(median > 0);
  CHECK(row.at("fastest_s").get<double>() <= median);
  CHECK(moved > 0);
  CHECK(flops >= 0);
  CHECK(copy == doctest::Approx(moved / median / rates.copy));
  CHECK(product == doctest::Approx(flops / median / rates.product));
  CHECK(row.at("share").get<double>() == std::max(copy, product));
  CHECK(row.at("launches").get<double>() >= 1);
  CHECK(row.at("floor_s").get<double>() >= moved / rates.copy * (1 - 1e-9));
  CHECK(row.at("ratio").get<double>() == doctest::Approx(median / row.at("floor_s").get<double>()));
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
  refused("attention",
          "part 'attention' is about the CPU; with --device cuda there are machine, ops, large, "
          "step, together");
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
  CHECK(launches == 4);  // of kernels, of nodes, of a graph; and until it is done
}

TEST_CASE("hax bench ops --device cuda: every op with its counts, shares and launches") {
  if (!cuda_is_here()) return;
  const json rows = rows_of({"ops", "--bsz", "2"});
  const Rates rates(rows);
  std::set<std::string> names;
  for (const json& row : rows) {
    if (row.at("part") != "ops") continue;
    check_counts(row, rates);
    CHECK(row.at("launched_s").get<double>() > 0);
    CHECK(!row.contains("note"));  // a graph of it could be made
    names.insert(row.at("name"));
  }
  // 16 ops in two directions, five that choose keys or train that, the optimiser.
  CHECK(names.size() == 2 * 16 + 5 + 1);
  // One number in, one out: softplus, 128 wide.
  const json& forward = row_named(rows, "softplus 128: forward");
  const json& backward = row_named(rows, "softplus 128: backward");
  const double tokens = forward.at("tokens");
  CHECK(forward.at("launches") == 1);
  CHECK(backward.at("launches") == 1);
  CHECK(forward.at("moved_bytes").get<double>() == 2 * 4 * 128 * tokens);
  CHECK(backward.at("moved_bytes").get<double>() == 3 * 4 * 128 * tokens);
  CHECK(forward.at("flops").get<double>() == 4 * 128 * tokens);
  CHECK(forward.at("bytes").get<double>() >= 4 * 128 * tokens);  // its result
  // A product each for the rows' and the weight's gradient; the latter's parts are added up where
  // there are many rows, as on a GPU.
  const json& linear = row_named(rows, "linear 64 to 256 (in_proj): backward");
  CHECK(linear.at("flops").get<double>() == 2 * 2 * 64 * 256 * tokens);
  CHECK(linear.at("launches") == (cuda_is_emulated() ? 2 : 3));
}

TEST_CASE("hax bench large --device cuda: shares of the copy's rate beside their targets") {
  if (!cuda_is_here()) return;
  const json rows = rows_of({"large"});
  const Rates rates(rows);
  int moving = 0, scans = 0;
  for (const json& row : rows) {
    if (row.at("part") != "large") continue;
    check_counts(row, rates);
    CHECK(!row.contains("note"));
    const bool scan = row.at("name").get<std::string>().starts_with("selective_scan");
    ++(scan ? scans : moving);
    CHECK(row.at("target_share").get<double>() == doctest::Approx(scan ? 1 / 1.5 : .6));
  }
  CHECK(moving == 1 + 9 * 2);  // add has nothing to do backwards
  CHECK(scans == 2);
}

TEST_CASE("hax bench step --device cuda: counts, and what 400,000 steps take") {
  if (!cuda_is_here()) return;
  const json rows = rows_of({"step", "--bsz", "1", "--arch", "mamba", "--arch", "transformer"});
  const Rates rates(rows);
  for (const char* arch : {"mamba", "transformer"}) {
    const json& row = row_named(rows, arch);
    check_counts(row, rates);
    const double median = row.at("median_s");
    CHECK(row.at("tokens_per_s").get<double>() ==
          doctest::Approx(row.at("tokens").get<double>() / median));
    CHECK(row.at("hours").get<double>() > 400000 * median / 3600);
    CHECK(row.at("floor_s").get<double>() < row.at("floor_full_s").get<double>());
    // Weights, gradients and two moments at least.
    CHECK(row.at("bytes").get<double>() > 4 * 4 * row.at("parameters").get<double>());
    CHECK(row.at("launches").get<double>() > 50);
  }
  CHECK(row_named(rows, "mamba").at("parameters") == 73920);
}

TEST_CASE("hax bench together --device cuda: runs side by side beside one alone") {
  if (!cuda_is_here()) return;
  const json rows = rows_of({"together", "--bsz", "1", "--arch", "mamba"});
  const json& row =
      row_named(rows, cuda_is_emulated() ? "mamba, 2 runs together" : "mamba, 9 runs together");
  const double alone = row.at("alone_s"), together = row.at("median_s");
  CHECK(together > 0);
  CHECK(row.at("speedup").get<double>() == doctest::Approx(alone / together));
  CHECK(row.at("bytes").get<double>() > 0);
}
