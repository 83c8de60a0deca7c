// hax explain: a page, numbers and two gradients that agree, for every op there is.
#include <doctest/doctest.h>

#include <filesystem>
#include <sstream>

#include "ops/gradcheck.h"
#include "tests/support/command.h"

using namespace hax;
using namespace hax::test;

namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("hax explain lists every op folder and every op with a gradient") {
  const std::string list = run_hax({"explain"}).out;
  for (const auto& entry : std::filesystem::directory_iterator(source_path("ops"))) {
    if (entry.is_directory()) CHECK(has(list, "  " + entry.path().filename().string() + "\n"));
  }
  for (const GradCase& c : all_gradchecks()) CHECK(has(list, "  " + c.op + "\n"));
}

TEST_CASE("hax explain: page, example and gradients of each op") {
  std::istringstream list(run_hax({"explain"}).out);
  std::string line;
  std::getline(list, line);
  while (std::getline(list, line)) {
    const std::string op = line.substr(2);
    INFO(op);
    const CommandResult result = run_hax({"explain", op});
    REQUIRE(result.code == 0);
    CHECK(result.out.starts_with("# "));
    const std::size_t example = result.out.find("A worked example: ");
    REQUIRE(example != std::string::npos);
    const std::string rest = result.out.substr(example);
    CHECK((has(rest, "by finite differences") || has(rest, "query 9") || has(rest, "  y = ")));
    // The largest gaps are written as powers of ten: none may be near 1.
    for (std::size_t at = rest.find("largest gap "); at != std::string::npos;
         at = rest.find("largest gap ", at + 1)) {
      CHECK(std::stod(rest.substr(at + 12)) < 1e-6);
    }
  }
}

TEST_CASE("hax explain shows the numbers of the chosen case") {
  const CommandResult result =
      run_hax({"explain", "ranking_loss", "--no_page", "--case", "one pair"});
  REQUIRE(result.code == 0);
  CHECK(!result.out.starts_with("# "));
  for (const GradCase& c : all_gradchecks()) {
    if (c.op != "ranking_loss" || c.what != "one pair") continue;
    const GradExample example = gradient_example(c);
    CHECK(has(result.out, fmt::format("{:.5f}", c.inputs[0].data<double>()[0])));
    CHECK(has(result.out, fmt::format("{:.5f}", example.y.item())));
    CHECK(has(result.out, fmt::format("{:.5f}", example.analytic[0].data<double>()[1])));
    CHECK(has(result.out, fmt::format("{:.5f}", example.numeric[0].data<double>()[1])));
  }
}

TEST_CASE("hax explain refuses what it does not know") {
  const CommandResult op = run_hax({"explain", "rms_nrom"});
  CHECK(op.code == 2);
  CHECK(has(op.err, "unknown op 'rms_nrom'; did you mean 'rms_norm'?"));
  const CommandResult which = run_hax({"explain", "rms_norm", "--case", "none such"});
  CHECK(which.code == 2);
  CHECK(has(which.err, "rms_norm has no such case"));
  CHECK(run_hax({"explain", "lsh", "--case", "any"}).code == 2);
}
