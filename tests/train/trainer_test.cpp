#include "train/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "engine/safetensors.h"
#include "models/config.h"
#include "tests/support/command.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"
#include "train/run_files.h"

using namespace hax;
using namespace hax::test;

namespace {

std::string small_config_file(const TempFolder& folder) {
  ModelConfig config = small_config("sign_bin_lsh+key_selection");
  config.resolve();
  write_text(folder / "small.json", to_json(config));
  return folder / "small.json";
}

// A run of a few seconds at most.
std::vector<std::string> train_flags(const TempFolder& folder, const std::string& run) {
  return {"train",
          "--config",
          small_config_file(folder),
          "--save_dir",
          folder / run,
          "--contexts",
          "2:4",
          "--keys",
          "2:4",
          "--values",
          "8",
          "--bsz",
          "8",
          "--step",
          "60",
          "--valid_step",
          "7",
          "--log_step",
          "1",
          "--lr",
          "3e-3",
          "--warmup_step",
          "5",
          "--valid_samples",
          "70",
          "--test_samples",
          "70",
          "--seed",
          "5"};
}

// Every file of a run that must not depend on when, where or with how many threads it ran.
std::vector<std::string> lasting_files() {
  return {"config.json",           "metrics.jsonl",
          "result.json",           "last/model.safetensors",
          "last/config.json",      "last/optimizer.safetensors",
          "last/state.json",       "best/config.json",
          "best/model.safetensors"};
}

void check_same_run(const TempFolder& folder, const std::string& a, const std::string& b) {
  for (const std::string& file : lasting_files()) {
    INFO(file);
    const std::string first = read_text(folder / (a + "/" + file));
    CHECK(!first.empty());
    CHECK(first == read_text(folder / (b + "/" + file)));
  }
}

std::vector<std::string> with(std::vector<std::string> flags, std::vector<std::string> more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

}  // namespace

TEST_CASE("a run stopped by Ctrl-C or killed goes on bit for bit") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "whole")).code == 0);
  for (const int signal : {SIGINT, SIGKILL}) {
    const std::string run = signal == SIGINT ? "interrupted" : "killed";
    int interruptions = 0;
    CommandResult result =
        run_hax(with(train_flags(folder, run), {"--threads", "1"}), {150, signal});
    for (int attempt = 0; attempt < 40 && result.code != 0; ++attempt) {
      CHECK(result.code == (signal == SIGINT ? 130 : 128 + SIGKILL));
      ++interruptions;
      // A process killed before it wrote anything leaves nothing to resume.
      const bool begun = std::filesystem::exists(folder / (run + "/recipe.json"));
      const std::vector<std::string> again =
          begun ? std::vector<std::string>{"train", "--resume", folder / run}
                : train_flags(folder, run);
      result = run_hax(again, {attempt < 3 ? 150 : 0, signal});
    }
    CHECK(result.code == 0);
    CHECK(interruptions >= 1);
    check_same_run(folder, "whole", run);
  }
}

TEST_CASE("results do not depend on the number of threads") {
  const TempFolder folder;
  REQUIRE(run_hax(with(train_flags(folder, "one"), {"--threads", "1"})).code == 0);
  REQUIRE(run_hax(with(train_flags(folder, "two"), {"--threads", "2"})).code == 0);
  REQUIRE(run_hax(with(train_flags(folder, "five"), {"--threads", "5"})).code == 0);
  check_same_run(folder, "one", "two");
  check_same_run(folder, "one", "five");
}

TEST_CASE("gradient accumulation equals a larger batch") {
  const TempFolder folder;
  const auto flags = [&](const std::string& run, const char* bsz, const char* acc) {
    return with(train_flags(folder, run), {"--bsz", bsz, "--grad_acc", acc});
  };
  // The last value of a repeated flag does not win silently: CLI refuses it, so build the list
  // without --bsz.
  const auto without_bsz = [](std::vector<std::string> list) {
    const auto at = std::find(list.begin(), list.end(), "--bsz");
    list.erase(at, at + 2);
    return list;
  };
  REQUIRE(run_hax(without_bsz(flags("large", "8", "1"))).code == 0);
  REQUIRE(run_hax(without_bsz(flags("accumulated", "2", "4"))).code == 0);
  CHECK(read_text(folder / "large/metrics.jsonl") ==
        read_text(folder / "accumulated/metrics.jsonl"));
}

TEST_CASE("hax eval repeats the run's own test") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  const std::string metrics = read_text(folder / "run/metrics.jsonl");
  const auto at = metrics.find("\"test_accuracy\":");
  REQUIRE(at != std::string::npos);
  const std::string number = metrics.substr(at + 16, metrics.find_first_of(",}", at) - at - 16);
  for (const char* path : {"run", "run/best", "run/best/model.safetensors"}) {
    const CommandResult result =
        run_hax({"eval", "--checkpoint", folder / path, "--json", "--contexts", "2:4", "--keys",
                 "2:4", "--values", "8", "--test_samples", "70", "--seed", "5"});
    CHECK(result.code == 0);
    INFO(result.out << result.err);
    CHECK(result.out.find("\"accuracy\": " + number) != std::string::npos);
  }
}

TEST_CASE("a finished run can be extended") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  const CommandResult result = run_hax({"train", "--resume", folder / "run", "--step", "63"});
  CHECK(result.code == 0);
  CHECK(read_text(folder / "run/last/state.json").find("\"step\": 63") != std::string::npos);
  CHECK(run_hax({"train", "--resume", folder / "run", "--step", "10"}).code == 2);
}

TEST_CASE("a NaN that key selection cannot rank is traced to the op that made it") {
  const TempFolder folder;
  const CommandResult result = run_hax({"train",
                                        "--sparse_arch",
                                        "key_selection",
                                        "--save_dir",
                                        folder / "run",
                                        "--lr",
                                        "10",
                                        "--weight_decay",
                                        "1",
                                        "--warmup_step",
                                        "0",
                                        "--step",
                                        "20",
                                        "--valid_step",
                                        "1",
                                        "--bsz",
                                        "4",
                                        "--keys",
                                        "2:3",
                                        "--contexts",
                                        "2:3",
                                        "--valid_samples",
                                        "4",
                                        "--test_samples",
                                        "4"});
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("is not finite; the first NaN or Inf comes from ") != std::string::npos);
  CHECK(result.err.find(" in backbone.layers.") != std::string::npos);
  // What was saved before is sound.
  CHECK(run_hax({"eval", "--checkpoint", folder / "run"}).code == 0);
}

TEST_CASE("a run needs the data it was started with, wherever it is resumed") {
  const TempFolder folder;
  const auto generate = [&](const char* seed) {
    return run_hax({"data", "generate", "--out", folder / "data", "--contexts", "2:3", "--keys",
                    "2:3", "--train", "200", "--valid", "10", "--test", "10", "--seed", seed,
                    "--force"});
  };
  REQUIRE(generate("1").code == 0);
  const auto relative = std::filesystem::relative(folder / "data").string();
  REQUIRE(run_hax({"train", "--save_dir", folder / "run", "--data_dir", relative, "--step", "3",
                   "--bsz", "4"})
              .code == 0);
  CHECK(read_text(folder / "run/recipe.json").find(folder / "data") != std::string::npos);
  CHECK(run_hax({"train", "--resume", folder / "run", "--step", "4"}).code == 0);
  REQUIRE(generate("2").code == 0);
  const CommandResult changed = run_hax({"train", "--resume", folder / "run", "--step", "5"});
  CHECK(changed.code == 1);
  CHECK(changed.err.find("has changed since") != std::string::npos);
  REQUIRE(generate("1").code == 0);
  CHECK(run_hax({"train", "--resume", folder / "run", "--step", "5"}).code == 0);
}

TEST_CASE("a run folder serves one process at a time, and needs no configuration file outside") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  std::filesystem::remove(folder / "small.json");
  {
    const FolderLock lock(folder / "run");
    const CommandResult result = run_hax({"train", "--resume", folder / "run", "--step", "61"});
    CHECK(result.code == 1);
    CHECK(result.err.find("is in use: another process trains there") != std::string::npos);
  }
  CHECK(run_hax({"train", "--resume", folder / "run", "--step", "61"}).code == 0);
}

TEST_CASE("a resumed run says what it could not read of metrics.jsonl") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  const std::string path = folder / "run/metrics.jsonl", whole = read_text(path);
  const auto resumed = [&](const char* step) {
    const CommandResult result = run_hax({"train", "--resume", folder / "run", "--step", step});
    CHECK(result.code == 0);
    return result.out;
  };
  CHECK(resumed("61").find("metrics.jsonl") == std::string::npos);
  const std::size_t second = whole.find('\n') + 1, third = whole.find('\n', second) + 1;
  write_text(path, whole.substr(0, second) + "{\"step\": 2, \"lo\n" + whole.substr(third));
  CHECK(resumed("62").find(path + ": line 2 could not be read and was left out") !=
        std::string::npos);
  write_text(path, "a\nb\n" + whole);
  CHECK(resumed("63").find("2 lines, from line 1 on, could not be read and were left out") !=
        std::string::npos);
  std::filesystem::remove(path);
  CHECK(resumed("64").find(path + ": missing; it goes on with step 64") != std::string::npos);
}

TEST_CASE("log.txt has the numbers of metrics.jsonl") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  const std::string metrics = read_text(folder / "run/metrics.jsonl"),
                    log = read_text(folder / "run/log.txt");
  CHECK(log.find("memory: at most about ") != std::string::npos);
  const auto number_after = [](const std::string& text, std::size_t from, const std::string& key) {
    return std::stod(text.substr(text.find(key, from) + key.size()));
  };
  for (const int step : {10, 33, 60}) {
    INFO(step);
    const std::size_t line = metrics.find(fmt::format("\"step\":{}}}", step));
    REQUIRE(line != std::string::npos);
    const std::size_t start = metrics.rfind('\n', line) + 1;
    const std::size_t logged = log.find(fmt::format("step {}/60  ", step));
    REQUIRE(logged != std::string::npos);
    CHECK(number_after(log, logged, "loss ") ==
          doctest::Approx(number_after(metrics, start, "\"loss\":")).epsilon(1e-4));
  }
}

TEST_CASE("a full disk stops a run in one line and leaves the last checkpoint as it was") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  const std::string before = read_text(folder / "run/last/model.safetensors");
  const CommandResult result =
      run_hax({"train", "--resume", folder / "run", "--step", "70"}, {.file_bytes = 20000});
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.err.find("model.safetensors: File too large") != std::string::npos);
  CHECK(read_text(folder / "run/last/model.safetensors") == before);
  CHECK(!std::filesystem::exists(folder / "run/last.new"));
  CHECK(!std::filesystem::exists(folder / "run/best.new"));
  // With room again, the run goes on.
  CHECK(run_hax({"train", "--resume", folder / "run", "--step", "70"}).code == 0);
}

TEST_CASE("a loss that is not finite stops the run and names the op that produced it") {
  const TempFolder folder;
  REQUIRE(run_hax(train_flags(folder, "run")).code == 0);
  const std::string weights = folder / "run/last/model.safetensors";
  const std::string before = read_text(weights);
  const auto resume_with = [&](const std::string& name, float value) {
    SafeTensors content = read_safetensors(weights);
    Tensor changed = content.tensors.at(name).clone();
    changed.data<float>()[0] = value;
    content.tensors[name] = changed;
    write_safetensors(weights, content);
    return run_hax({"train", "--resume", folder / "run", "--step", "70"});
  };
  // e^200 overflows float32: A becomes -Inf. The state then decays at once, so that only the
  // gradient notices.
  const CommandResult overflow = resume_with("backbone.layers.1.mixer.A_log", 200);
  CHECK(overflow.code == 1);
  INFO(overflow.err);
  CHECK(overflow.err.find(
            "step 61: the gradient is not finite; the first NaN or Inf comes from neg_exp "
            "in backbone.layers.1.mixer (forward), sequence 0 of the batch") != std::string::npos);
  write_text(weights, before);
  const CommandResult poisoned = resume_with("backbone.norm_f.weight", std::nanf(""));
  CHECK(poisoned.code == 1);
  CHECK(poisoned.err.find("comes from parameter backbone.norm_f.weight, before the step") !=
        std::string::npos);
}
