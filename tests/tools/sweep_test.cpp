// hax sweep and hax report, as a user runs them.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/check.h"
#include "tests/support/command.h"

using namespace hax;
using namespace hax::test;

namespace {

namespace fs = std::filesystem;

// Eight runs of a second in all; `steps` makes them longer.
std::string grid_file(const TempFolder& folder, int steps = 30) {
  write_text(folder / "grid.json", fmt::format(R"({{
    "architectures": ["mamba", "mamba+key_selection"],
    "settings": {{"contexts": "2:3", "keys": "2:3", "values": 4, "bsz": 4, "step": {}, "valid_step": 10,
      "log_step": 5, "valid_samples": 16, "test_samples": 36, "warmup_step": 5}},
    "grid": {{"lr": [0.003, 0.001], "seed": [1, 2]}}}})",
                                               steps));
  return folder / "grid.json";
}

std::vector<std::string> sweep(const std::string& grid, const std::string& out,
                               const std::vector<std::string>& more = {}) {
  std::vector<std::string> args{"sweep", "--recipe", grid, "--out", out};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string last_part(const std::string& text) { return text.substr(text.find("\n\n")); }

void refused(const std::vector<std::string>& args, const std::string& part) {
  const CommandResult result = run_hax(args);
  INFO(result.err);
  CHECK(result.code != 0);
  CHECK(std::ranges::count(result.err, '\n') == 1);
  CHECK(result.err.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("sweep: every run of the grid, one line each, and nothing twice") {
  const TempFolder folder;
  const std::string grid = grid_file(folder), out = folder / "out";
  const CommandResult first = run_hax(sweep(grid, out));
  INFO(first.out << first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("mamba+key_selection,seed=2,lr=0.001: test ") == std::string::npos);
  CHECK(first.out.find("mamba+key_selection,lr=0.001,seed=2: test ") != std::string::npos);
  CHECK(lines_of(read_text(out + "/table.md")).size() == 4);

  const CommandResult again = run_hax(sweep(grid, out));
  CHECK(again.code == 0);
  CHECK(again.out.find("starts") == std::string::npos);
  CHECK(last_part(again.out) == last_part(first.out));
}

TEST_CASE("sweep: killed in the middle, it goes on to the same table") {
  const TempFolder folder;
  const std::string grid = grid_file(folder, 100), whole = folder / "whole", cut = folder / "cut";
  const CommandResult reference = run_hax(sweep(grid, whole));
  REQUIRE(reference.code == 0);
  for (const int after_ms : {300, 900}) {
    const CommandResult killed =
        run_hax(sweep(grid, cut, {"--jobs", "2"}), {.kill_after_ms = after_ms, .signal = SIGKILL});
    // Eight runs, two at a time, take longer than the first of these times anywhere.
    CHECK((killed.code == 128 + SIGKILL || (after_ms > 300 && killed.code == 0)));
  }
  const CommandResult interrupted =
      run_hax(sweep(grid, cut), {.kill_after_ms = 500, .signal = SIGINT});
  CHECK((interrupted.code == 0 || interrupted.code == 130));
  const CommandResult last = run_hax(sweep(grid, cut));
  INFO(last.out << last.err);
  CHECK(last.code == 0);
  CHECK(last_part(last.out) == last_part(reference.out));
  CHECK(read_text(cut + "/table.md") == read_text(whole + "/table.md"));
  for (const auto& entry : fs::directory_iterator(whole + "/runs")) {
    const std::string name = entry.path().filename();
    for (const char* file : {"/result.json", "/metrics.jsonl", "/breakdown.json"}) {
      INFO(name << file);
      CHECK(read_text(cut + "/runs/" + name + file) == read_text(entry.path().string() + file));
    }
  }
}

TEST_CASE("sweep: a run that fails stops no other and is named") {
  const TempFolder folder;
  const std::string grid = folder / "grid.json", out = folder / "out";
  REQUIRE(run_hax({"data", "generate", "--out", folder / "data", "--contexts", "2:3", "--keys",
                   "2:3", "--values", "4", "--train", "64", "--valid", "16", "--test", "16"})
              .code == 0);
  write_text(grid, fmt::format(R"({{"architectures": ["mamba"],
    "settings": {{"bsz": 4, "step": 5}}, "grid": {{"data_dir": ["{}", "/nowhere"]}}}})",
                               (folder / "data").string()));
  const CommandResult result = run_hax(sweep(grid, out));
  INFO(result.out << result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("1 of the runs failed: mamba,data_dir=_nowhere") != std::string::npos);
  CHECK(result.out.find("FAILED: ") != std::string::npos);
  CHECK(result.out.find("/nowhere") != std::string::npos);
  CHECK(lines_of(read_text(out + "/table.md")).size() == 3);
}

TEST_CASE("sweep: one command a run for schedulers, and shares") {
  const TempFolder folder;
  const std::string grid = grid_file(folder), out = folder / "out";
  const std::vector<std::string> commands = lines_of(run_hax(sweep(grid, out, {"--list"})).out);
  REQUIRE(commands.size() == 8);
  CHECK(!fs::exists(out));
  CHECK(commands[2].find("--only 3/8") != std::string::npos);
  const CommandResult one = run_hax(sweep(grid, out, {"--only", "3/8"}));
  CHECK(one.code == 0);
  const std::string name = commands[2].substr(commands[2].find("# ") + 2);
  CHECK(fs::exists(out + "/runs/" + name + "/result.json"));
  CHECK(std::distance(fs::directory_iterator(out + "/runs"), fs::directory_iterator()) == 1);
}

TEST_CASE("sweep: the built-in grids") {
  const auto runs = [](const std::string& name) {
    const CommandResult result = run_hax({"sweep", "--recipe", name, "--out", "x", "--list"});
    INFO(result.err);
    CHECK(result.code == 0);
    return lines_of(result.out).size();
  };
  CHECK(runs("table3_paper") == 19 * 3 * 3);
  CHECK(runs("table3_small") == 19 * 2);
}

TEST_CASE("sweep: wrong grids are refused in one line") {
  const TempFolder folder;
  const std::string out = folder / "out";
  const auto grid = [&](const std::string& text, const std::string& part) {
    write_text(folder / "g.json", text);
    refused(sweep(folder / "g.json", out), part);
    CHECK(!fs::exists(out));
  };
  grid("{", "not valid JSON");
  grid("{}", "\"architectures\" is missing");
  grid(R"({"architectures": ["mamba"], "gird": {}})", "unknown key 'gird'; did you mean 'grid'?");
  grid(R"({"architectures": ["mamab"]})", "unknown base_arch 'mamab'; did you mean 'mamba'?");
  grid(R"({"architectures": ["mamba+ful"]})", "did you mean 'full'?");
  grid(R"({"architectures": ["mamba"], "settings": {"lrr": 1}})", "unknown setting 'lrr'");
  grid(R"({"architectures": ["mamba"], "settings": {"save_dir": "x"}})", "chooses save_dir itself");
  grid(R"({"architectures": ["mamba"], "grid": {"lr": 0.1}})", "lr is 0.1, expected [values]");
  grid(R"({"architectures": ["mamba"], "grid": {"lr": [0.1, -1]}})", "--lr -1");
  grid(R"({"architectures": ["mamba", "mamba"]})", "is there twice");
  grid(R"({"architectures": ["samba+none", "transformer+full"]})", "transformer");
  refused(sweep("paper", out), "grid paper: unknown key 'bsz'");
  refused(sweep(grid_file(folder), out, {"--only", "9"}), "expected i/n");
  refused(sweep(grid_file(folder), out, {"--only", "3/2"}), "from 1 to 2");
  refused(sweep(grid_file(folder), out, {"--devices", "0,x"}), "--devices 'x'");
  refused({"train", "--recipe", "table3_small", "--save_dir", out},
          "a grid of runs, for hax sweep");
  REQUIRE(run_hax(sweep(grid_file(folder), out, {"--only", "1/8"})).code == 0);
  refused(sweep(grid_file(folder, 50), out), "the sweep of another grid");
}

TEST_CASE("report: one page that needs nothing else, and a table") {
  const TempFolder folder;
  const std::string out = folder / "out", html = folder / "r.html", text = folder / "r.md";
  REQUIRE(run_hax(sweep(grid_file(folder), out)).code == 0);
  // A run of a version without breakdown and costs, an unfinished one, a damaged one.
  const std::string runs = out + "/runs/";
  fs::remove(runs + "mamba,lr=0.003,seed=1/breakdown.json");
  fs::remove(runs + "mamba,lr=0.003,seed=1/costs.json");
  fs::remove(runs + "mamba,lr=0.003,seed=2/breakdown.json");
  fs::remove(runs + "mamba,lr=0.001,seed=1/breakdown.json");
  fs::remove(runs + "mamba,lr=0.001,seed=2/result.json");
  write_text(runs + "mamba+key_selection,lr=0.001,seed=2/result.json", "{");
  const CommandResult result = run_hax({"report", out, "--out", html, "--markdown", text});
  INFO(result.out << result.err);
  REQUIRE(result.code == 0);
  CHECK(result.out.find("left out: ") != std::string::npos);
  const std::string page = read_text(html);
  for (const char* part : {"Mamba + KS", "Not recorded by the runs of: Mamba.", "36.6", "<svg",
                           "not finished, at step 30 of 30", "prefers-color-scheme: dark",
                           "n_c \\ n_k", "name=\"viewport\""}) {
    INFO(part);
    CHECK(page.find(part) != std::string::npos);
  }
  for (const char* part : {"http:", "https:", "src=", "<script", "nan"}) {
    INFO(part);
    CHECK(page.find(part) == std::string::npos);
  }
  CHECK(read_text(text).find("| Mamba + KS | ") != std::string::npos);

  refused({"report", out}, "--out is missing");
  refused({"report", folder / "none", "--out", html}, "is not a folder");
  refused({"report"}, "runs is missing");
}

TEST_CASE("the breakdown of a test agrees with its accuracy") {
  const TempFolder folder;
  const std::string grid = grid_file(folder), out = folder / "out";
  REQUIRE(run_hax(sweep(grid, out, {"--only", "1/8"})).code == 0);
  const std::string run = out + "/runs/mamba,lr=0.003,seed=1";
  const auto json = [](const std::string& path) { return nlohmann::json::parse(read_text(path)); };
  const auto mean = [](const nlohmann::json& parts, const char* count) {
    double sum = 0, all = 0;
    for (const auto& part : parts) {
      sum += part.at("accuracy").get<double>() * part.at(count).get<double>();
      all += part.at(count).get<double>();
    }
    return std::pair{sum / all, all};
  };
  const nlohmann::json parts = json(run + "/breakdown.json");
  const auto [accuracy, samples] = mean(parts["by_size"], "samples");
  CHECK(parts["by_size"].size() == 4);
  CHECK(samples == 36);
  CHECK(accuracy == doctest::Approx(json(run + "/result.json")["test_accuracy"].get<double>()));
  // 9 of each size: 9 x (4 + 6 + 6 + 9) answers.
  CHECK(mean(parts["by_distance"], "targets").second == 225);

  const std::string file = folder / "again.json";
  REQUIRE(run_hax({"eval", "--checkpoint", run, "--breakdown", file}).code == 0);
  CHECK(read_text(file) == read_text(run + "/breakdown.json"));
}
