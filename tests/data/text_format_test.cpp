#include "data/text_format.h"

#include <doctest/doctest.h>

#include <sstream>

#include "engine/check.h"
#include "tests/data/support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

std::vector<std::string> lines_of(const fs::path& path) {
  std::istringstream text(read_file(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

std::string error_of_import(const std::string& prefix, const fs::path& folder,
                            const TaskFlags& flags = {}) {
  return error_of([&] { import_text(prefix, folder, flags, true); });
}

// Values 10 11, keys 12 13, contexts 14 15: lines of 2 * 2 * 5 + 2 = 22 numbers.
class TinyText {
 public:
  TinyText() {
    write("train", {"1 14 12 10 13 11 15 13 10 12 10 4 15 12 10 13 10 14 13 11 12 10",
                    "1 14 13 10 12 11 4 14 12 11 13 10 3 3 3 3 3 3 3 3 3 3",
                    "1 15 12 11 14 12 10 4 14 12 10 15 12 11 3 3 3 3 3 3 3 3"});
    write("valid", {"1 14 12 10 4 14 12 10 3 3 3 3 3 3 3 3 3 3 3 3 3 3"});
    write("test", {});
  }

  std::string prefix() const { return (folder_ / "jr").string(); }
  fs::path out() const { return folder_ / "out"; }
  fs::path path(const std::string& split, const std::string& kind) const {
    return folder_ / ("jr_" + split + "_" + kind + ".txt");
  }

  void write(const std::string& split, const std::vector<std::string>& lines,
             const std::string& line_end = "\n") const {
    std::string inputs, masks;
    for (const std::string& line : lines) {
      inputs += line + line_end;
      masks += mask_of(line) + line_end;
    }
    write_file(path(split, "inputs"), inputs);
    write_file(path(split, "mask"), masks);
  }

  // The error of importing, without the path of the file that is wrong.
  std::string error(const TaskFlags& flags = {}) const {
    const std::string text = error_of_import(prefix(), out(), flags);
    CHECK(!fs::exists(out()));
    const std::string path = prefix() + "_";
    return text.starts_with(path) ? text.substr(path.size()) : text;
  }
  // The same with one line of train's inputs or mask replaced.
  std::string error_with(const std::string& kind, std::size_t number, const std::string& line,
                         const TaskFlags& flags = {}) const {
    const fs::path file = path("train", kind);
    const std::string before = read_file(file);
    std::vector<std::string> lines = lines_of(file);
    lines[number - 1] = line;
    std::string text;
    for (const std::string& each : lines) text += each + "\n";
    write_file(file, text);
    const std::string result = error(flags);
    write_file(file, before);
    return result;
  }

 private:
  static std::string mask_of(const std::string& line) {
    std::istringstream tokens(line);
    std::string mask;
    bool second = false;
    for (int token; tokens >> token;) {
      second |= token == 4;
      mask += second && (token == 12 || token == 13) ? " 1" : " 0";
    }
    return mask.empty() ? mask : mask.substr(1);
  }

  TempFolder folder_;
};

}  // namespace

TEST_CASE("text format: export writes the released layout") {
  const TempFolder folder;
  const JointRecallTask task = make_task(2, Range{1, 2}, Range{2, 3}, 4);
  generate_dataset(folder / "set", {.task = task, .samples = {20, 4, 4}});
  const Dataset dataset(folder / "set");
  export_text(dataset, (folder / "new" / "jr").string(), false);
  CHECK(names_in(folder / "new") ==
        std::vector<std::string>{"jr_test_inputs.txt", "jr_test_mask.txt", "jr_train_inputs.txt",
                                 "jr_train_mask.txt", "jr_valid_inputs.txt", "jr_valid_mask.txt"});
  const auto inputs = lines_of(folder / "new" / "jr_train_inputs.txt");
  const auto masks = lines_of(folder / "new" / "jr_train_mask.txt");
  CHECK(inputs.size() == 20);
  CHECK(masks.size() == 20);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto sample = sample_of(dataset.split(Split::train), static_cast<std::int64_t>(i));
    std::string expected, mask;
    for (std::int64_t t = 0; t < task.fixed_length(); ++t) {
      const bool real = t < static_cast<std::int64_t>(sample.size());
      const std::int32_t token = real ? sample[static_cast<std::size_t>(t)] : 3;
      const bool second = t > static_cast<std::int64_t>(sample.size()) / 2;
      expected += fmt::format("{}{}", t == 0 ? "" : " ", token);
      mask += fmt::format("{}{}", t == 0 ? "" : " ", second && token >= 14 && token < 17 ? 1 : 0);
    }
    CHECK(inputs[i] == expected);
    CHECK(masks[i] == mask);
  }
}

TEST_CASE("text format: export and import give the dataset back, its task found from the data") {
  for (const auto& [levels, contexts, keys, values] :
       std::vector<std::tuple<int, Range, Range, int>>{{2, {5, 7}, {4, 6}, 16},
                                                       {1, {1, 1}, {4, 9}, 5},
                                                       {3, {2, 3}, {2, 2}, 7},
                                                       {4, {1, 2}, {6, 7}, 2},
                                                       {2, {3, 3}, {3, 3}, 300}}) {
    CAPTURE(levels);
    const TempFolder folder;
    const JointRecallTask task =
        make_task(levels, levels > 1 ? std::optional(contexts) : std::nullopt, keys, values);
    generate_dataset(folder / "set", {.task = task, .samples = {70, 9, 16}, .seed = 3});
    const Dataset dataset(folder / "set");
    const std::string prefix = (folder / "jr").string();
    export_text(dataset, prefix, false);
    import_text(prefix, folder / "back", {}, false);
    const Dataset back(folder / "back");
    CHECK(back.task() == task);
    CHECK(back.info().origin == Origin::imported);
    CHECK(back.info().seed == 0);
    verify_dataset(back);
    for (const Split split : kSplits) {
      CHECK(back.split(split).samples() == dataset.split(split).samples());
      for (std::int64_t i = 0; i < back.split(split).samples(); ++i) {
        CHECK(sample_of(back.split(split), i) == sample_of(dataset.split(split), i));
      }
    }
    export_text(back, (folder / "again").string(), false);
    for (const char* name : {"train_inputs", "train_mask", "test_inputs", "valid_mask"}) {
      CHECK(read_file(fmt::format("{}_{}.txt", prefix, name)) ==
            read_file(folder / fmt::format("again_{}.txt", name)));
    }
  }
}

TEST_CASE("text format: flags choose the task") {
  const TinyText text;
  import_text(text.prefix(), text.out(), {}, false);
  CHECK(Dataset(text.out()).task() == make_task(2, Range{1, 2}, Range{1, 2}, 2));
  fs::remove_all(text.out());
  import_text(text.prefix(), text.out(),
              {.levels = 2, .contexts = Range{1, 2}, .keys = Range{1, 2}, .values = 2}, false);
  CHECK(Dataset(text.out()).task() == make_task(2, Range{1, 2}, Range{1, 2}, 2));
  CHECK(sample_of(Dataset(text.out()).split(Split::train), 1) ==
        std::vector<std::int32_t>{1, 14, 13, 10, 12, 11, 4, 14, 12, 11, 13, 10});
  fs::remove_all(text.out());

  CHECK(text.error({.levels = {}, .contexts = Range{2, 2}, .keys = {}, .values = {}}) ==
        "train_inputs.txt:2: token 7: a block of 1 contexts, expected 2:2");
  CHECK(text.error({.levels = {}, .contexts = Range{1, 3}, .keys = Range{1, 2}, .values = 2}) ==
        "train_inputs.txt:1: 22 numbers, expected 32 for contexts 1:3, keys 1:2, 2 values");
  CHECK(text.error({.levels = 1, .contexts = Range{1, 2}, .keys = {}, .values = {}}) ==
        "--contexts is not for one level, which has keys only");
  CHECK(text.error({.levels = 1, .contexts = {}, .keys = {}, .values = {}}) ==
        "train_inputs.txt:1: not a sample of 1 level");
}

TEST_CASE("text format: line ends of other systems, spaces, and a missing last line end") {
  const TinyText text;
  text.write("valid", {"1 14 12 10 4 14 12 10 3 3 3 3 3 3 3 3 3 3 3 3 3 3"}, "\r\n");
  import_text(text.prefix(), text.out(), {}, false);
  const std::string expected = read_file(text.out() / "valid.hax");
  text.write("valid", {"  1 14  12 10 4 14 12 10 3 3 3 3 3 3 3 3 3 3 3 3 3 3 "}, "");
  import_text(text.prefix(), text.out(), {}, true);
  CHECK(read_file(text.out() / "valid.hax") == expected);
}

TEST_CASE("text format: every wrong line is named") {
  const TinyText text;
  const std::string good = "1 14 13 10 12 11 4 14 12 11 13 10 3 3 3 3 3 3 3 3 3 3";
  const auto inputs = [&](const std::string& line) { return text.error_with("inputs", 2, line); };
  const std::string as_first =
      fmt::format(" numbers, expected 22 as in {}:1", text.path("train", "inputs").string());
  CHECK(inputs("") == "train_inputs.txt:2: 0" + as_first);
  CHECK(inputs(good + " 3") == "train_inputs.txt:2: 23" + as_first);
  CHECK(inputs(good.substr(2)) == "train_inputs.txt:2: 21" + as_first);
  CHECK(inputs("1 14 x" + good.substr(7)) == "train_inputs.txt:2: 'x' where number 3 should be");
  CHECK(inputs("1 14 1.5" + good.substr(7)) ==
        "train_inputs.txt:2: '1.5' where number 3 should be");
  CHECK(inputs("1 14 -3" + good.substr(7)) == "train_inputs.txt:2: '-3' where number 3 should be");
  CHECK(inputs("1 14 1234567890" + good.substr(7)) ==
        "train_inputs.txt:2: '1234567890' where number 3 should be");
  CHECK(inputs("1 14,13" + good.substr(7)) ==
        "train_inputs.txt:2: '14,13' where number 2 should be");
  CHECK(inputs("1\t14 13" + good.substr(7)) ==
        "train_inputs.txt:2: '1?14' where number 1 should be");
  CHECK(inputs("2" + good.substr(1)) == "train_inputs.txt:2: not a sample of 2 levels");
  CHECK(inputs("1 14 13 10 12 11 4 14 12 10 13 10 3 3 3 3 3 3 3 3 3 3") ==
        "train_inputs.txt:2: token 10: value 0 where the first half has 1");
  CHECK(inputs("1 14 13 10 12 11 4 14 12 11 13 10 3 3 3 3 3 3 3 3 3 0") ==
        "train_inputs.txt:2: token 13: 3 (pad), expected the end");
  CHECK(inputs("1 14 13 10 12 11 4 14 12 11 3 3 3 3 3 3 3 3 3 3 3 3") ==
        "train_inputs.txt:2: token 11: a block of 1 keys after one of 2");
  CHECK(inputs("3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3") ==
        "train_inputs.txt:2: not a sample of 2 levels");

  const auto mask = [&](const std::string& line) { return text.error_with("mask", 2, line); };
  CHECK(mask("0 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0") ==
        "train_mask.txt:2: number 11 is 0, expected 1 for the token 13 (b)");
  CHECK(mask("0 0 1 0 0 0 0 0 1 0 1 0 0 0 0 0 0 0 0 0 0 0") ==
        "train_mask.txt:2: number 3 is 1, expected 0 for the token 13 (b)");
  CHECK(mask("0 0 0 0 0 0 0 0 1 0 2 0 0 0 0 0 0 0 0 0 0 0") ==
        "train_mask.txt:2: number 11 is 2, expected 1 for the token 13 (b)");
  CHECK(mask("0 0 0 0 0 0 0 0 1 0 1 0 0 0 0 0 0 0 0 0 0 1") ==
        "train_mask.txt:2: number 22 is 1, expected 0 for the token 3 (pad)");
  CHECK(mask("0 0") == "train_mask.txt:2: 2 numbers, expected 22");
  CHECK(mask("zero") == "train_mask.txt:2: 'zero' where number 1 should be");
}

TEST_CASE("text format: samples that occur twice are refused, wherever") {
  const TinyText text;
  const std::string line = "1 14 13 10 12 11 4 14 12 11 13 10 3 3 3 3 3 3 3 3 3 3";
  text.write("train", {line, "1 15 12 11 14 12 10 4 14 12 10 15 12 11 3 3 3 3 3 3 3 3", line});
  CHECK(text.error() == fmt::format("train_inputs.txt:3: the same sample as {}:1",
                                    text.path("train", "inputs").string()));
  text.write("train", {"1 14 12 10 13 11 15 13 10 12 10 4 15 12 10 13 10 14 13 11 12 10", line});
  text.write("test", {line});
  CHECK(text.error() == fmt::format("test_inputs.txt:1: the same sample as {}:2",
                                    text.path("train", "inputs").string()));
}

TEST_CASE("text format: missing and unequal files") {
  const TinyText text;
  write_file(text.path("valid", "mask"), "");
  CHECK(text.error() == fmt::format("valid_mask.txt: 0 lines, but {} has 1",
                                    text.path("valid", "inputs").string()));
  fs::remove(text.path("valid", "mask"));
  CHECK(text.error() == fmt::format("cannot read {}: No such file or directory",
                                    text.path("valid", "mask").string()));
  CHECK(error_of_import("/nowhere/jr", text.out()) ==
        "cannot read /nowhere/jr_train_inputs.txt: No such file or directory");
  const TinyText empty;
  empty.write("train", {});
  empty.write("valid", {});
  CHECK(empty.error() == "train_inputs.txt: no samples in any split");
  // Binary junk, and a text that is no sample.
  write_file(empty.path("train", "inputs"), std::string("\x00\xff\n", 3));
  write_file(empty.path("train", "mask"), "0\n");
  CHECK(empty.error() ==
        "train_inputs.txt:1: '?"
        "?' where number 1 should be");
  write_file(empty.path("train", "inputs"), "5\n");
  CHECK(empty.error() == "train_inputs.txt:1: not a sample: no context, key, value");
  write_file(empty.path("train", "inputs"), "1 12 11 10\n");
  CHECK(empty.error().starts_with("train_inputs.txt:1: cannot tell the task ("));
}

TEST_CASE("text format: export replaces files only on demand and leaves nothing half-written") {
  const TempFolder folder;
  generate_dataset(folder / "set",
                   {.task = make_task(2, Range{1, 2}, Range{2, 3}, 4), .samples = {20, 4, 4}});
  const Dataset dataset(folder / "set");
  fs::create_directory(folder / "text");
  write_file(folder / "text" / "jr_valid_mask.txt", "mine");
  const std::string prefix = (folder / "text" / "jr").string();
  CHECK(error_of([&] { export_text(dataset, prefix, false); }) ==
        prefix + "_valid_mask.txt exists; --force replaces it");
  CHECK_THROWS_AS(export_text(dataset, prefix, false), UsageError);
  CHECK(names_in(folder / "text") == std::vector<std::string>{"jr_valid_mask.txt"});
  fs::create_symlink("/dev/full", folder / "text" / "jr_test_mask.txt.partial");
  CHECK(error_of([&] { export_text(dataset, prefix, true); }) ==
        fmt::format("cannot write {}_test_mask.txt: No space left on device", prefix));
  CHECK(names_in(folder / "text") == std::vector<std::string>{"jr_valid_mask.txt"});
  CHECK(read_file(folder / "text" / "jr_valid_mask.txt") == "mine");
  CHECK_THROWS_AS(export_text(dataset, (folder / "new" / "jr").string(), false,
                              [](Split, std::int64_t, std::int64_t) { return false; }),
                  Interrupted);
  CHECK(!fs::exists(folder / "new"));
  export_text(dataset, prefix, true);
  CHECK(names_in(folder / "text").size() == 6);
}
