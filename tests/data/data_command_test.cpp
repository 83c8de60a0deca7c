// `hax data` as a user runs it: what it prints, exit codes, and that nothing is left half-done.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "data/dataset.h"
#include "tests/data/support.h"

using namespace hax;
using namespace hax::test;

namespace {

const std::string kSmall = " --contexts 2:3 --keys 2:4 --values 5 --train 60 --valid 6 --test 12";

// Exit code, and one clear line on stderr.
void check_refused(const std::string& arguments, int code, const std::string& message) {
  CAPTURE(arguments);
  const RunResult result = run_hax("data " + arguments);
  CHECK(result.code == code);
  CHECK(result.out == "");
  CHECK(result.err == "hax: " + message + "\n");
}

}  // namespace

TEST_CASE("data command: generate, verify, show") {
  const TempFolder folder;
  const std::string set = (folder / "set").string();
  const RunResult made = run_hax("data generate --seed 5 --out " + set + kSmall);
  CHECK(made.code == 0);
  CHECK(made.out.starts_with(set + ": contexts 2:3, keys 2:4, 5 values, generated from seed 5\n"));
  CHECK(made.err ==
        "train: 60 of 60 samples written (100%)\nvalid: 6 of 6 samples written (100%)\n"
        "test: 12 of 12 samples written (100%)\n");
  const Dataset dataset(set);
  CHECK(dataset.info() ==
        DatasetInfo{.task = make_task(2, Range{2, 3}, Range{2, 4}, 5), .seed = 5});

  const RunResult verified = run_hax("data verify --data_dir " + set);
  CHECK(verified.code == 0);
  CHECK(made.out.starts_with(verified.out));

  // Shown from the file and from the stream: the same samples.
  const RunResult shown =
      run_hax("data show --data_dir " + set + " --split valid --index 3 --count 3");
  const RunResult drawn = run_hax(
      "data show --contexts 2:3 --keys 2:4 --values 5 --seed 5 --split valid --index 3 --count 3");
  CHECK(shown.code == 0);
  CHECK(shown.out.starts_with("valid 3: 3 contexts x 2 keys, 32 of 56 tokens, 6 questions\n"));
  CHECK(shown.out == drawn.out);
  const auto tokens = sample_of(dataset.split(Split::test), 11);
  CHECK(run_hax("data show --tokens --split test --index 11 --data_dir " + set).out ==
        fmt::format("{}\n", fmt::join(tokens, " ")));

  // The same again, elsewhere and with other threads: the same bytes.
  const std::string other = (folder / "deep" / "other").string();
  CHECK(run_hax("data generate --seed 5 --threads 2 --out " + other + kSmall).code == 0);
  for (const char* name : {"train.hax", "valid.hax", "test.hax", "manifest.json"}) {
    CHECK(read_file(set + "/" + name) == read_file(other + "/" + name));
  }
  check_refused("generate --out " + set + kSmall, 2,
                set + " holds a dataset already; --force replaces it");
  CHECK(run_hax("data generate --seed 6 --force --out " + set + kSmall).code == 0);
  CHECK(Dataset(set).info().seed == 6);
}

TEST_CASE("data command: a sample as it reads") {
  const TempFolder folder;
  const std::string prefix = (folder / "jr").string();
  // Values 10-12, keys 13 14, contexts 15 16 of level 2, 17 18 of level 1.
  const std::string line =
      "1 18 16 14 12 13 10 15 13 11 14 12 17 15 13 10 14 10 16 13 12 14 11 4 "
      "17 16 14 11 13 12 15 13 10 14 10 18 15 14 12 13 11 16 13 10 14 12";
  const std::string mask =
      "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
      "0 0 1 0 1 0 0 1 0 1 0 0 0 1 0 1 0 0 1 0 1 0";
  for (const char* split : {"train", "valid", "test"}) {
    write_file(fmt::format("{}_{}_inputs.txt", prefix, split), split[1] == 'r' ? line + "\n" : "");
    write_file(fmt::format("{}_{}_mask.txt", prefix, split), split[1] == 'r' ? mask + "\n" : "");
  }
  const std::string set = (folder / "set").string();
  const RunResult imported = run_hax("data import --prefix " + prefix + " --out " + set);
  CHECK(imported.err.ends_with("train: 1 of 1 samples imported (100%)\n"));
  CHECK(imported.out.starts_with(set + ": 3 levels, contexts 2:2, keys 2:2, 3 values, imported\n"));
  CHECK(run_hax("data show --data_dir " + set).out ==
        "train 0: 2 contexts x 2 contexts x 2 keys, 46 of 46 tokens, 8 questions\n"
        "B' B b 2 a 0 A a 1 b 2 A' A a 0 b 0 B a 2 b 1 | "
        "A' B b ?1 a ?2 A a ?0 b ?0 B' A b ?2 a ?1 B a ?0 b ?2\n");
  CHECK(run_hax("data export --data_dir " + set + " --prefix " + prefix + "2").code == 0);
  CHECK(read_file(prefix + "2_train_inputs.txt") == line + "\n");
  CHECK(read_file(prefix + "2_train_mask.txt") == mask + "\n");
  check_refused("export --data_dir " + set + " --prefix " + prefix, 2,
                prefix + "_train_inputs.txt exists; --force replaces it");
  write_file(prefix + "_train_mask.txt", "0x" + mask.substr(1) + "\n");
  check_refused("import --force --prefix " + prefix + " --out " + set, 1,
                prefix + "_train_mask.txt:1: '0x' where number 1 should be");
}

TEST_CASE("data command: wrong flags are refused in one line") {
  const TempFolder folder;
  const std::string out = "generate --out " + (folder / "set").string();
  const std::string a_b = ": expected a:b, as in 5:16, or one number";
  check_refused(out + " --keys 5-16", 2, "--keys '5-16'" + a_b);
  check_refused(out + " --keys ''", 2, "--keys ''" + a_b);
  check_refused(out + " --contexts 4:x", 2, "--contexts '4:x'" + a_b);
  check_refused(out + " --keys 0:3", 2, "--keys 0:3: expected a:b with 1 <= a <= b");
  check_refused(out + " --keys 4:3", 2, "--keys 4:3: expected a:b with 1 <= a <= b");
  check_refused(out + " --values 0", 2, "--values 0: expected at least 1");
  check_refused(out + " --levels 0", 2, "--levels 0: expected 1 to 16");
  check_refused(out + " --levels 99", 2, "--levels 99: expected 1 to 16");
  check_refused(out + " --levels 1 --contexts 2:3", 2,
                "--contexts is not for --levels 1, which has keys only");
  check_refused(out + " --train -5", 2,
                "--train '-5': expected a whole number from 0 to 18446744073709551615");
  check_refused(out + " --seed 18446744073709551616", 2,
                "--seed '18446744073709551616': expected a whole number from 0 to "
                "18446744073709551615");
  check_refused(out + " --values 0x10", 2,
                "--values '0x10': expected a whole number from -2147483648 to 2147483647");
  check_refused(out + " --train 5000000000", 2, "--train 5000000000: at most 4294967296 samples");
  check_refused(out + " --train 0 --valid 0 --test 0", 2, "no samples were asked for");
  check_refused(out + " --keys 2 --contexts 1 --values 2", 2,
                "too few distinct samples: tables of 1 context x 2 keys have 16 in all, 14 of them "
                "train, and 1440000 are wanted; widen the sizes or the values, or ask for fewer "
                "samples");
  check_refused(
      out + " --keys 1000000 --contexts 1000", 2,
      "samples of contexts 1000:1000, keys 1000000:1000000, 16 values would be longer than "
      "268435456 tokens");
  for (const std::string_view wrong :
       {" --values x", " --values 1.5", " --values 99999999999", " --seed -1",
        " --seed 18446744073709551616", " --train 1e6", " --threads -1", " --key 3", " extra",
        " --train", " --keys 2:3 --keys 3:4"}) {
    CAPTURE(wrong);
    const RunResult result = run_hax(fmt::format("data {}{}", out, wrong));
    CHECK(result.code == 2);
    CHECK(result.err.starts_with("hax: "));
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  }
  CHECK(names_in(folder.path()).empty());
  for (const std::string_view wrong :
       {"", "generate", "make", "verify", "import --prefix x", "export"}) {
    CAPTURE(wrong);
    const RunResult result = run_hax(fmt::format("data {}", wrong));
    CHECK(result.code == 2);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  }
  check_refused("show --split dev", 2, "split 'dev': expected train, valid or test");
  check_refused("show --index -1", 2,
                "--index '-1': expected a whole number from 0 to 9223372036854775807");
  check_refused(
      "show --data_dir x --keys 2:3", 2,
      "--data_dir has its own task and seed; leave out --contexts --keys --values --levels "
      "--seed");
  check_refused("show --data_dir /nowhere", 1, "/nowhere: no such folder");
  check_refused("verify --data_dir " + folder.path().string(), 1,
                folder.path().string() +
                    ": no dataset here (manifest.json is missing); 'hax data "
                    "generate' writes one");
  generate_dataset(folder / "set",
                   {.task = make_task(2, Range{2, 2}, Range{2, 2}, 5), .samples = {10, 0, 0}});
  const std::string set = (folder / "set").string();
  check_refused("show --index 10 --data_dir " + set, 2,
                "--index 10 --count 1: the train split has 10 samples");
  check_refused("show --index 9223372036854775807 --count 9223372036854775807 --data_dir " + set, 2,
                "--index 9223372036854775807 --count 9223372036854775807: the train split has 10 "
                "samples");
}

TEST_CASE("data command: folders that cannot be written") {
  const TempFolder folder;
  write_file(folder / "file", "x");
  const std::string file = (folder / "file").string();
  check_refused("generate --out " + file + kSmall, 1,
                "cannot open folder " + file + ": Not a directory");
  check_refused("generate --out " + file + "/a/b" + kSmall, 1,
                "cannot create folder " + file + "/a: Not a directory");
  check_refused("generate --out /proc/nowhere" + kSmall, 1,
                "cannot create folder /proc/nowhere: No such file or directory");
  CHECK(names_in(folder.path()) == std::vector<std::string>{"file"});
}

TEST_CASE("data command: Ctrl-C and a polite kill leave nothing behind") {
  const TempFolder folder;
  int signal = 0;
  SUBCASE("Ctrl-C") { signal = SIGINT; }
  SUBCASE("kill") { signal = SIGTERM; }
  const std::string out = (folder / "set").string();
  const std::string binary = hax_binary();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(null, STDERR_FILENO);
    ::execl(binary.c_str(), binary.c_str(), "data", "generate", "--out", out.c_str(), "--contexts",
            "2", "--keys", "5", "--train", "4000000", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  using namespace std::chrono_literals;
  for (int i = 0; i < 2000 && !fs::exists(out + "/train.hax.partial"); ++i) {
    std::this_thread::sleep_for(5ms);
  }
  CHECK(fs::exists(out + "/train.hax.partial"));
  std::this_thread::sleep_for(50ms);
  ::kill(child, signal);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == signal);
  CHECK(names_in(folder.path()).empty());
}
