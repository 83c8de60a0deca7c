// What a user can get wrong: one clear line, exit code 2 (usage) or 1 (else), nothing on disk
// damaged.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "engine/device.h"
#include "tests/support/command.h"

using namespace hax::test;

namespace {

void check_refused(const std::vector<std::string>& args, int code, const std::string& part) {
  const CommandResult result = run_hax(args);
  std::string command;
  for (const std::string& arg : args) command += arg + " ";
  INFO("hax " << command << "\n" << result.err);
  CHECK(result.code == code);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.err.starts_with("hax: "));
  CHECK(result.err.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("wrong commands and flags") {
  check_refused({}, 2, "a command is missing, one of train, eval, bench");
  check_refused({"trian"}, 2, "unknown command 'trian'; did you mean 'train'?");
  check_refused({"train", "--larning_rate", "1"}, 2, "unknown flag --larning_rate");
  check_refused({"train", "--stp", "1"}, 2, "unknown flag --stp; did you mean '--step'?");
  check_refused({"train", "--save_dir", "y", "--stp", "3"}, 2,
                "unknown flag --stp; did you mean '--step'?");
  check_refused({"train", "--lr"}, 2, "--lr needs a value");
  check_refused({"train", "--lr", "fast"}, 2, "--lr 'fast': expected a number");
  check_refused({"train", "--bsz", "1", "--bsz", "2"}, 2, "--bsz is given more than once");
  check_refused({"train", "extra"}, 2, "'extra' is one word too many");
  check_refused({"data", "genrate"}, 2, "unknown command 'genrate'; did you mean 'generate'?");
  check_refused({"data"}, 2, "a command is missing, one of generate");
  check_refused({"verify"}, 2, "files");
  check_refused({"verify", "--tol", "-1", "x"}, 2, "--tol");
  check_refused({"gradcheck", "--tol", "zero"}, 2, "--tol");
  check_refused({"eval"}, 2, "--checkpoint is missing");
}

TEST_CASE("settings out of range") {
  const TempFolder folder;
  const auto refused = [&](const std::string& flag, const std::string& value,
                           const std::string& part) {
    const std::string run = folder / "run";
    check_refused({"train", "--save_dir", run, "--step", "1", flag, value}, 2, part);
    CHECK(!std::filesystem::exists(run));
  };
  refused("--bsz", "0", "--bsz '0': expected a whole number from 1 to 1000000");
  refused("--bsz", "many", "--bsz");
  refused("--bsz", "1.5", "--bsz");
  refused("--bsz", "99999999999999999999", "--bsz");
  refused("--lr", "nan", "--lr nan: expected a learning rate above 0");
  refused("--lr", "inf", "--lr inf: expected a learning rate above 0");
  refused("--lr", "-1", "--lr -1: expected a learning rate above 0");
  refused("--lr", "0", "--lr 0: expected a learning rate above 0");
  refused("--grad_acc", "0", "--grad_acc '0'");
  refused("--warmup_step", "-1", "--warmup_step '-1': expected a whole number from 0");
  refused("--valid_step", "0", "--valid_step '0'");
  refused("--gate_loss_weight", "-0.1", "--gate_loss_weight -0.1");
  refused("--gate_loss_weight", "nan", "--gate_loss_weight nan");
  refused("--clip_norm", "-3", "--clip_norm -3");
  refused("--weight_decay", "2", "--weight_decay 2");
  refused("--beta1", "1", "--beta1 1");
  refused("--adam_eps", "0", "--adam_eps 0");
  refused("--seed", "-1", "--seed '-1'");
  refused("--num_hash", "99", "num_hash is 99, expected 1 to 62 hash bits");
  refused("--num_hash", "9",
          "--num_hash changes nothing: sparse_arch is none, which does not hash");
  refused("--num_hash", "0", "--num_hash '0'");
  refused("--sparse_keys", "0", "--sparse_keys '0'");
  refused("--sparse_arch", "two\nlines", "unknown sparse_arch 'two\\nlines'");
  refused("--seed", "0x10", "--seed '0x10'");
  refused("--shards", "9", "--shards '9\'");
  refused("--threads", "-2", "--threads '-2'");
  refused("--values", "0", "values");
  refused("--levels", "0", "levels");
  refused("--keys", "7:3", "7:3");
  refused("--keys", "a:b", "a:b");
  refused("--contexts", "0:3", "0:3");
  refused("--device", "tpu", "unknown device 'tpu': expected cpu or cuda");
  if (!hax::kHasCuda) refused("--device", "cuda", "this build has no CUDA backend");
  refused("--base_arch", "mamab", "unknown base_arch 'mamab'; did you mean 'mamba'?");
  refused("--sparse_arch", "sign_bin_ish", "did you mean 'sign_bin_lsh'?");
  refused("--norm_mode", "future", "norm_mode 'future': expected causal or released");
  refused("--lsh_center", "middle", "lsh_center 'middle'");
  refused("--recipe", "papr", "recipe 'papr' is neither a file nor known; did you mean 'paper'?");
  check_refused(
      {"train", "--save_dir", folder / "run", "--sparse_arch", "sign_bin_lsh", "--num_hash", "99"},
      2, "num_hash is 99, expected 1 to 62 hash bits");
  check_refused({"train", "--save_dir", folder / "run", "--levels", "1", "--contexts", "2:3"}, 2,
                "--contexts");
  for (const std::string& flag : {std::string("--config"), std::string("--data_dir")}) {
    check_refused({"train", "--save_dir", folder / "run", flag, folder / "nowhere"}, 1, "nowhere");
    CHECK(!std::filesystem::exists(folder / "run"));
  }
  check_refused({"train", "--step", "1"}, 2, "--save_dir is missing");
}

TEST_CASE("settings that change nothing are refused") {
  const TempFolder folder;
  const auto refused = [&](const std::string& sparse, const std::string& flag,
                           const std::string& value, const std::string& part) {
    check_refused({"train", "--save_dir", folder / "run", "--sparse_arch", sparse, flag, value}, 2,
                  part);
    CHECK(!std::filesystem::exists(folder / "run"));
  };
  refused(
      "key_selection", "--num_hash", "4",
      "--num_hash changes nothing: sparse_arch is key_selection, which does not hash; leave it");
  refused("none", "--sparse_keys", "4", "--sparse_keys changes nothing: sparse_arch is none");
  refused("full", "--sparse_keys", "4", "which sees all keys");
  refused("sliding_window", "--lsh_center", "none", "--lsh_center changes nothing");
  refused("sign_bin_lsh", "--data_max_length", "64", "which has no dilated keys");
  refused("sign_bin_lsh", "--gate_loss_weight", "1", "which has no ranking loss");
  refused("none", "--norm_mode", "released", "--norm_mode changes nothing");
  check_refused({"train", "--save_dir", folder / "run", "--base_arch", "mamba", "--config", "x"}, 2,
                "--base_arch and --config cannot go together");
}

TEST_CASE("eval's help speaks of the run, train's of defaults") {
  const std::string help = run_hax({"eval", "--help"}).out;
  CHECK(help.find("as the run had it") != std::string::npos);
  CHECK(help.find("5:16") == std::string::npos);
  CHECK(help.find("[16]") == std::string::npos);
  CHECK(run_hax({"train", "--help"}).out.find("5:16") != std::string::npos);
}

TEST_CASE("one level drops the contexts of a recipe, not those of a flag") {
  const TempFolder folder;
  write_text(folder / "two.json", R"({"contexts": "2:3", "keys": "2:3", "bsz": 2, "step": 1,
      "valid_samples": 2, "test_samples": 2})");
  const std::vector<std::string> train{
      "train", "--recipe", folder / "two.json", "--save_dir", folder / "a", "--levels", "1"};
  const CommandResult result = run_hax(train);
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK(run_hax({"eval", "--checkpoint", folder / "a"}).code == 0);
}

TEST_CASE("bad recipe and configuration files") {
  const TempFolder folder;
  const auto recipe = [&](const std::string& text, const std::string& part) {
    write_text(folder / "recipe.json", text);
    check_refused({"train", "--recipe", folder / "recipe.json", "--save_dir", folder / "run"}, 2,
                  part);
  };
  recipe("{", "not valid JSON");
  recipe("[1]", "expected a JSON object");
  recipe("{\"lerning\": 1}", "unknown setting 'lerning'");
  recipe("{\"lr\": \"fast\"}", "lr is \"fast\", expected a number");
  recipe("{\"bsz\": 2.5}", "bsz is 2.5, expected an integer");
  recipe("{\"bsz\": 0}", "--bsz 0");
  recipe("{\"bsz\": 18446744073709551615}", "bsz");
  const auto config = [&](const std::string& text, const std::string& part) {
    write_text(folder / "config.json", text);
    check_refused({"train", "--config", folder / "config.json", "--save_dir", folder / "run"}, 2,
                  part);
  };
  config("", "not valid JSON");
  config("{\"hiden_size\": 3}", "unknown key 'hiden_size'; did you mean 'hidden_size'?");
  config("{\"state_size\": -4}", "state_size is -4");
  config("{\"vocab_size\": 12}", "vocab_size is 12, the task has tokens up to");
  CHECK(!std::filesystem::exists(folder / "run"));
}

TEST_CASE("folders that cannot be used") {
  const TempFolder folder;
  write_text(folder / "file", "x");
  check_refused({"train", "--save_dir", folder / "file/run", "--step", "1"}, 1, "file/run");
  check_refused({"train", "--save_dir", "/proc/hax_run", "--step", "1"}, 1, "/proc/hax_run");
  check_refused({"train", "--resume", folder / "nothing"}, 1, "is not a run folder");
  check_refused({"eval", "--checkpoint", folder / "nothing"}, 1, "does not exist");
  check_refused({"eval", "--checkpoint", folder.path().string()}, 1, "holds no checkpoint");
  CHECK(read_text(folder / "file") == "x");
}

TEST_CASE("damaged runs and checkpoints are refused and left as they are") {
  const TempFolder folder;
  const std::string run = folder / "run";
  const std::vector<std::string> train{
      "train", "--save_dir",     run,   "--step",     "2",   "--bsz",
      "2",     "--keys",         "2:2", "--contexts", "2:2", "--valid_samples",
      "2",     "--test_samples", "2",   "--seed",     "1"};
  REQUIRE(run_hax(train).code == 0);
  check_refused(train, 2, "already holds a run");
  check_refused({"train", "--resume", run, "--lr", "1"}, 2, "--lr cannot change");
  check_refused({"train", "--resume", run, "--recipe", "paper"}, 2, "cannot go together");
  check_refused({"eval", "--checkpoint", run, "--split", "tset"}, 2, "tset");
  check_refused({"eval", "--checkpoint", run, "--split", "train"}, 2, "expected valid or test");
  check_refused({"eval", "--checkpoint", run, "--keys", "2:90"}, 2, "tokens");

  const auto damaged = [&](const std::string& file, const std::string& text,
                           const std::string& part) {
    const std::string path = run + "/" + file, before = read_text(path);
    write_text(path, text);
    const CommandResult result = run_hax({"train", "--resume", run, "--step", "4"});
    INFO(file << ": " << result.err);
    CHECK(result.code != 0);
    CHECK(result.code < 3);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK(result.err.find(part) != std::string::npos);
    CHECK(read_text(path) == text);
    write_text(path, before);
  };
  const std::string weights = read_text(run + "/last/model.safetensors");
  damaged("last/model.safetensors", weights.substr(0, weights.size() - 1), "model.safetensors");
  damaged("last/model.safetensors", weights + "x", "model.safetensors");
  damaged("last/model.safetensors", weights.substr(0, 5), "model.safetensors");
  damaged("last/model.safetensors", "", "model.safetensors");
  damaged("last/optimizer.safetensors", weights, "is missing");
  damaged("last/state.json", "{}", "'step' is missing or not a number");
  damaged("last/state.json", "{", "not valid JSON");
  damaged("last/config.json", "{\"hidden_size\": 32}", "[");
  damaged("recipe.json", "{\"bsz\": 0}", "--bsz 0");
  std::filesystem::remove(run + "/last/optimizer.safetensors");
  check_refused({"train", "--resume", run, "--step", "4"}, 1, "optimizer.safetensors");
}

TEST_CASE("prove: flags out of range") {
  const auto refused = [](const std::vector<std::string>& flags, const std::string& part) {
    std::vector<std::string> args{"prove"};
    args.insert(args.end(), flags.begin(), flags.end());
    check_refused(args, 2, part);
  };
  refused({"--entries", "0"}, "--entries '0': expected a whole number from 1 to 4194304");
  refused({"--entries", "4194305"}, "--entries '4194305'");
  refused({"--entries", "16,many"}, "--entries 'many'");
  refused({"--entries"}, "--entries");
  refused({"--levels", "0"}, "--levels '0': expected a whole number from 1 to 4");
  refused({"--levels", "5"}, "--levels '5'");
  refused({"--values", "1"}, "--values '1': expected a whole number from 2");
  refused({"--num_hash", "0"}, "--num_hash '0'");
  refused({"--num_hash", "63"}, "--num_hash '63': expected a whole number from 1 to 62");
  refused({"--sparse_keys", "0"}, "--sparse_keys '0'");
  refused({"--seed", "-1"}, "--seed '-1'");
  refused({"--show", "--entries", "17"}, "--entries 17: --show is for at most 16 entries");
  refused({"--show", "--entries", "4,16"}, "--show is for one table");
  refused({"--show", "--json"}, "--json");
}

TEST_CASE("verify reports files that are not fixtures and goes on") {
  const TempFolder folder;
  write_text(folder / "bad.safetensors", "not safetensors at all");
  const std::string good = fixture_path("mamba__none__released.safetensors");
  const CommandResult result = run_hax({"verify", folder / "bad.safetensors", good});
  CHECK(result.code == 1);
  CHECK(result.out.find("FAILED bad") != std::string::npos);
  CHECK(result.out.find("ok     mamba__none__released") != std::string::npos);
  CHECK(result.out.find("1 of 2 files within tolerance") != std::string::npos);
  CHECK(run_hax({"verify", folder / "missing.safetensors"}).code == 1);
  CHECK(run_hax({"verify", "--tol", "1e-12", good}).code == 1);
}
