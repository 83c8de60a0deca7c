// hax train --together and hax sweep --together: runs that share a GPU, as a user starts them.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>

#include "engine/device.h"
#include "tests/support/command.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

namespace fs = std::filesystem;

std::string recipe_file(const TempFolder& folder, const std::string& name, int seed, int steps) {
  write_text(folder / name, fmt::format(R"({{"base_arch": "mamba", "sparse_arch": "sign_bin_lsh",
    "contexts": "2:3", "keys": "2:3", "values": 4, "bsz": 2, "step": {}, "valid_step": 4, "log_step": 2,
    "valid_samples": 4, "test_samples": 4, "warmup_step": 5, "seed": {}}})",
                                        steps, seed));
  return folder / name;
}

// The list of two runs in folder/a and folder/b.
std::string list_file(const TempFolder& folder, int steps) {
  write_text(
      folder / "list.json",
      fmt::format(R"([{{"recipe": "{}", "save_dir": "{}"}}, {{"recipe": "{}", "save_dir": "{}",
               "errors": "{}"}}])",
                  recipe_file(folder, "a.json", 1, steps), (folder / "a").string(),
                  recipe_file(folder, "b.json", 2, steps), (folder / "b").string(),
                  (folder / "b.txt").string()));
  return folder / "list.json";
}

void same_run(const std::string& one, const std::string& other) {
  for (const char* file : {"/result.json", "/metrics.jsonl", "/breakdown.json"}) {
    INFO(one << file);
    CHECK(read_text(one + file) == read_text(other + file));
  }
}

void refused(const std::vector<std::string>& args, const std::string& part) {
  const CommandResult result = run_hax(args);
  INFO(result.err);
  CHECK(result.code == 2);
  CHECK(std::ranges::count(result.err, '\n') == 1);
  CHECK(result.err.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("train --together on CUDA: every run as if it were alone, also after an interruption") {
  if (!cuda_is_here()) return;
  const TempFolder folder;
  const std::string list = list_file(folder, 12);
  for (const char* name : {"a", "b"}) {
    const CommandResult alone =
        run_hax({"train", "--device", "cuda", "--recipe", folder / (std::string(name) + ".json"),
                 "--save_dir", folder / (std::string(name) + "_alone")});
    INFO(alone.err);
    REQUIRE(alone.code == 0);
  }
  const std::vector<std::string> command{"train", "--device", "cuda", "--together", list};
  const CommandResult interrupted = run_hax(command, {.kill_after_ms = 700, .signal = SIGINT});
  CHECK((interrupted.code == 130 || interrupted.code == 0));
  const CommandResult last = run_hax(command);
  INFO(last.out << last.err);
  CHECK(last.code == 0);
  CHECK(last.out.find((folder / "a").string() + ": test accuracy ") != std::string::npos);
  same_run(folder / "a", folder / "a_alone");
  same_run(folder / "b", folder / "b_alone");
}

TEST_CASE("train --together on CUDA: a run that fails stops no other") {
  if (!cuda_is_here()) return;
  const TempFolder folder;
  const std::string list = list_file(folder, 4);
  write_text(folder / "b.json", R"({"base_arch": "mamba", "data_dir": "/nowhere", "step": 4})");
  const CommandResult result = run_hax({"train", "--device", "cuda", "--together", list});
  INFO(result.out << result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("1 of 2 runs failed: ") != std::string::npos);
  CHECK(result.out.find((folder / "b").string() + ": FAILED: ") != std::string::npos);
  CHECK(read_text(folder / "b.txt").find("/nowhere") != std::string::npos);
  CHECK(fs::exists(folder / "a/result.json"));
}

TEST_CASE("sweep --together on CUDA: the same table as one run at a time") {
  if (!cuda_is_here()) return;
  const TempFolder folder;
  const std::string grid = folder / "grid.json";
  write_text(grid, R"({"architectures": ["mamba", "mamba+key_selection"],
    "settings": {"contexts": "2:3", "keys": "2:3", "values": 4, "bsz": 2, "step": 4, "valid_step": 4,
      "valid_samples": 4, "test_samples": 4}, "grid": {"seed": [1, 2]}})");
  const auto sweep = [&](const std::string& out, const std::string& together) {
    const CommandResult result = run_hax(
        {"sweep", "--recipe", grid, "--out", out, "--devices", "0", "--together", together});
    INFO(result.out << result.err);
    CHECK(result.code == 0);
  };
  sweep(folder / "one", "1");
  sweep(folder / "two", "2");
  CHECK(read_text(folder / "two/table.md") == read_text(folder / "one/table.md"));
  CHECK(fs::exists(folder / "two/recipes/mamba,seed=1.together.json"));
  same_run(folder / "two/runs/mamba+key_selection,seed=2",
           folder / "one/runs/mamba+key_selection,seed=2");
}

TEST_CASE("--together is refused where it makes no sense, in one line") {
  const TempFolder folder;
  const std::string list = list_file(folder, 4);
  const auto together = [&](const std::string& file, std::vector<std::string> more = {}) {
    std::vector<std::string> args{"train", "--together", file};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  refused(together(list), "it needs --device cuda");
  refused(together(list, {"--recipe", "table3"}), "leave out --recipe and --resume");
  refused(together(list, {"--seed", "3"}), "--seed cannot go with --together");
  write_text(folder / "bad.json", "{}");
  refused(together(folder / "bad.json"), "expected [{\"recipe\": file");
  write_text(folder / "bad.json", R"([{"recipe": "x"}])");
  refused(together(folder / "bad.json"), "entry 1 names no");
  refused({"sweep", "--recipe", "table3_small", "--out", folder / "out", "--together", "2"},
          "it needs --devices");
  if constexpr (kHasCuda) return;
  CHECK(run_hax(together(list, {"--device", "cuda"})).code != 0);
  CHECK(!fs::exists(folder / "a"));
}
