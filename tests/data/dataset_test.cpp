#include "data/dataset.h"

#include <doctest/doctest.h>

#include <set>

#include "engine/check.h"
#include "tests/data/support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

const std::vector<std::string> kFiles{"manifest.json", "test.hax", "train.hax", "valid.hax"};

GenerateOptions small_options() {
  return {.task = make_task(2, Range{2, 4}, Range{3, 5}, 6), .samples = {500, 60, 70}, .seed = 9};
}

}  // namespace

TEST_CASE("dataset: holds the samples of the streams") {
  const TempFolder folder;
  const GenerateOptions options = small_options();
  generate_dataset(folder / "set", options);
  CHECK(names_in(folder / "set") == kFiles);
  const Dataset dataset(folder / "set");
  CHECK(dataset.task() == options.task);
  CHECK(dataset.info().seed == 9);
  CHECK(dataset.info().origin == Origin::generated);
  verify_dataset(dataset);
  for (const Split split : kSplits) {
    const StreamSource stream(options.task, 9, split);
    const SplitFile& file = dataset.split(split);
    CHECK(file.count() ==
          static_cast<std::int64_t>(options.samples[static_cast<std::size_t>(split)]));
    std::int64_t tokens = 0;
    for (std::int64_t i = 0; i < file.samples(); ++i) {
      const auto sample = sample_of(file, i);
      CHECK(sample == sample_of(stream, i));
      tokens += static_cast<std::int64_t>(sample.size());
    }
    CHECK(tokens == file.tokens());
    CHECK(sample_of(*dataset.source(split), 3) == sample_of(file, 3));
    CHECK_THROWS_AS(sample_of(file, file.samples()), Error);
    CHECK_THROWS_AS(sample_of(file, -1), Error);
  }
}

TEST_CASE("dataset: equal arguments give equal bytes for any number of threads") {
  const TempFolder folder;
  // Several blocks, and many repeated samples to replace.
  GenerateOptions options{
      .task = make_task(2, Range{1, 40}, Range{3, 3}, 2), .samples = {8000, 40, 80}, .seed = 1};
  for (const int threads : {1, 2, 3}) {
    options.threads = threads;
    generate_dataset(folder / std::to_string(threads), options);
  }
  for (const std::string& name : kFiles) {
    const std::string one = read_file(folder / "1" / name);
    CHECK(one.size() > 100);
    CHECK(one == read_file(folder / "2" / name));
    CHECK(one == read_file(folder / "3" / name));
  }
  verify_dataset(Dataset(folder / "1"));
  options.seed = 2;
  generate_dataset(folder / "other", options);
  CHECK(read_file(folder / "1" / "train.hax") != read_file(folder / "other" / "train.hax"));
}

TEST_CASE("dataset: every distinct sample once when all are wanted") {
  const TempFolder folder;
  const JointRecallTask task = make_task(1, {}, Range{3, 3}, 3);  // 27 * 36 = 972 samples
  const SplitCounts supply = count_by_split(task, task.sizes(0));
  generate_dataset(folder / "set", {.task = task, .samples = supply});
  const Dataset dataset(folder / "set");
  verify_dataset(dataset);
  std::set<std::vector<std::int32_t>> seen;
  for (const Split split : kSplits) {
    for (std::int64_t i = 0; i < dataset.split(split).samples(); ++i) {
      seen.insert(sample_of(dataset.split(split), i));
    }
  }
  CHECK(seen.size() == 972);
  const SplitCounts more{supply[0], supply[1] + 1, supply[2]};
  CHECK_THROWS_AS(generate_dataset(folder / "more", {.task = task, .samples = more}), UsageError);
  CHECK(!fs::exists(folder / "more"));
}

TEST_CASE("dataset: tokens take one, two or four bytes") {
  const TempFolder folder;
  for (const auto& [values, bytes] : std::vector<std::pair<std::int32_t, int>>{
           {200, 1}, {256 - 10 - 2 - 2, 1}, {256 - 10 - 2 - 1, 2}, {60'000, 2}, {70'000, 4}}) {
    const GenerateOptions options{.task = make_task(2, Range{2, 2}, Range{2, 2}, values),
                                  .samples = {40, 3, 0},
                                  .replace = true};
    generate_dataset(folder.path(), options);
    const Dataset dataset(folder.path());
    verify_dataset(dataset);
    CHECK(token_bytes(options.task) == bytes);
    const std::int64_t length = options.task.fixed_length();
    CHECK(fs::file_size(folder / "train.hax") ==
          static_cast<std::uintmax_t>(128 + (40 * length * bytes + 7) / 8 * 8 + 8 * 41));
    const StreamSource stream(options.task, 0, Split::train);
    for (std::int64_t i = 0; i < 40; ++i) {
      CHECK(sample_of(dataset.split(Split::train), i) == sample_of(stream, i));
    }
    CHECK(dataset.split(Split::test).samples() == 0);
  }
}

TEST_CASE("dataset: any number of levels") {
  const TempFolder folder;
  for (const int levels : {1, 2, 3, 5}) {
    const JointRecallTask task =
        make_task(levels, levels > 1 ? std::optional(Range{1, 2}) : std::nullopt, Range{6, 7}, 9);
    const fs::path path = folder / std::to_string(levels);
    generate_dataset(path, {.task = task, .samples = {64, 8, 8}});
    const Dataset dataset(path);
    verify_dataset(dataset);
    CHECK(dataset.task() == task);
  }
}

TEST_CASE("dataset: one that exists is replaced only on demand") {
  const TempFolder folder;
  GenerateOptions options = small_options();
  generate_dataset(folder.path(), options);
  write_file(folder / "notes.txt", "mine");
  const std::string before = read_file(folder / "train.hax");
  options.seed = 10;
  CHECK(error_of([&] { generate_dataset(folder.path(), options); }) ==
        folder.path().string() + " holds a dataset already; --force replaces it");
  CHECK_THROWS_AS(generate_dataset(folder.path(), options), UsageError);
  CHECK(read_file(folder / "train.hax") == before);
  verify_dataset(Dataset(folder.path()));
  options.replace = true;
  generate_dataset(folder.path(), options);
  CHECK(Dataset(folder.path()).info().seed == 10);
  CHECK(read_file(folder / "notes.txt") == "mine");
  CHECK(names_in(folder.path()).size() == 5);
}

TEST_CASE("dataset: stopped work leaves nothing behind") {
  const TempFolder folder;
  const auto stop_in = [](Split stop) {
    return
        [stop](Split split, std::int64_t done, std::int64_t) { return split != stop || done == 0; };
  };
  for (const Split split : kSplits) {
    CHECK_THROWS_AS(generate_dataset(folder / "new" / "deep", small_options(), stop_in(split)),
                    Interrupted);
    CHECK(names_in(folder.path()).empty());
  }
  // Nor does it harm what was there.
  generate_dataset(folder.path(), small_options());
  const std::string before = read_file(folder / "train.hax");
  GenerateOptions other = small_options();
  other.seed = 77;
  other.replace = true;
  CHECK_THROWS_AS(generate_dataset(folder.path(), other, stop_in(Split::test)), Interrupted);
  CHECK(names_in(folder.path()) == kFiles);
  CHECK(read_file(folder / "train.hax") == before);
  verify_dataset(Dataset(folder.path()));
  CHECK_THROWS_AS(verify_dataset(Dataset(folder.path()), stop_in(Split::valid)), Interrupted);
}

TEST_CASE("dataset: folders that cannot be written and full disks") {
  const TempFolder folder;
  write_file(folder / "file", "x");
  CHECK(error_of([&] { generate_dataset(folder / "file", small_options()); }) ==
        fmt::format("cannot open folder {}: Not a directory", (folder / "file").string()));
  CHECK(
      error_of([&] { generate_dataset(folder / "file" / "set", small_options()); }) ==
      fmt::format("cannot create folder {}: Not a directory", (folder / "file" / "set").string()));
  CHECK(error_of([&] { generate_dataset("/proc/set", small_options()); }) ==
        "cannot create folder /proc/set: No such file or directory");
  CHECK(names_in(folder.path()) == std::vector<std::string>{"file"});

  // What is written to /dev/full meets a full disk.
  for (const std::string& name : kFiles) {
    CAPTURE(name);
    const fs::path set = folder / "set";
    fs::create_directory(set);
    fs::create_symlink("/dev/full", set / (name + ".partial"));
    CHECK(error_of([&] { generate_dataset(set, small_options()); }) ==
          fmt::format("cannot write {}: No space left on device", (set / name).string()));
    CHECK(names_in(set).empty());
    fs::remove(set);
  }
}

TEST_CASE("dataset: one writer at a time") {
  const TempFolder folder;
  const OutputFolder first(folder.path());
  CHECK(error_of([&] { generate_dataset(folder.path(), small_options()); }) ==
        folder.path().string() + ": another process is writing here");
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("dataset: a file left by a killed process is no obstacle") {
  const TempFolder folder;
  write_file(folder / "train.hax.partial", std::string(100'000, 'x'));
  generate_dataset(folder.path(), small_options());
  CHECK(names_in(folder.path()) == kFiles);
  verify_dataset(Dataset(folder.path()));
}
