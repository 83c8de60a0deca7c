// Whatever is wrong with a dataset's files: one clear line, never a crash or wrong samples.
#include <doctest/doctest.h>
#include <xxhash.h>

#include <cstring>

#include "data/dataset.h"
#include "engine/check.h"
#include "tests/data/support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

// A small dataset, whose files can be spoilt and restored.
class Spoiled {
 public:
  Spoiled() {
    generate_dataset(folder_.path(),
                     {.task = make_task(2, Range{1, 2}, Range{2, 3}, 200), .samples = {9, 5, 2}});
    train_ = read_file(path());
  }

  fs::path path() const { return folder_ / "train.hax"; }
  const TempFolder& folder() const { return folder_; }
  const std::string& train() const { return train_; }

  // What opening and verifying says with these bytes in train.hax, without the path.
  std::string error_with(const std::string& bytes) const {
    write_file(path(), bytes);
    const std::string error = error_of([&] { verify_dataset(Dataset(folder_.path())); });
    write_file(path(), train_);
    const std::string prefix = path().string() + ": ";
    return error.starts_with(prefix) ? error.substr(prefix.size()) : error;
  }

  // The same when the manifest, too, has the new checksum.
  std::string error_with_manifest(const std::string& bytes) const {
    const fs::path manifest = folder_ / "manifest.json";
    const std::string before = read_file(manifest);
    const auto checksum = [](const std::string& file) {
      std::uint64_t value = 0;
      std::memcpy(&value, file.data() + 120, 8);
      return fmt::format("{:016x}", value);
    };
    std::string text = before;
    text.replace(text.find(checksum(train_)), 16, checksum(bytes));
    write_file(manifest, text);
    const std::string error = error_with(bytes);
    write_file(manifest, before);
    return error;
  }

  // The file with a number changed and the checksums made right again.
  template <class T>
  std::string patched(std::size_t at, T value) const {
    std::string bytes = train_;
    std::memcpy(bytes.data() + at, &value, sizeof(T));
    return sealed(bytes);
  }
  std::string sealed(std::string bytes) const {
    const std::size_t data = 128, offsets = bytes.size() - 8 * 10;
    std::uint64_t tokens = 0;
    std::memcpy(&tokens, train_.data() + 64, 8);
    put(bytes, 72, XXH3_64bits(bytes.data() + data, tokens));
    put(bytes, 80, XXH3_64bits(bytes.data() + offsets, 8 * 10));
    put(bytes, 120, XXH3_64bits(bytes.data(), 120));
    return bytes;
  }

 private:
  static void put(std::string& bytes, std::size_t at, std::uint64_t value) {
    std::memcpy(bytes.data() + at, &value, 8);
  }

  TempFolder folder_;
  std::string train_;
};

}  // namespace

TEST_CASE("damaged dataset: every changed byte is noticed") {
  const Spoiled set;
  CHECK(set.error_with(set.train()) == "");
  CHECK(set.error_with(set.sealed(set.train())) == "");
  for (std::size_t at = 0; at < set.train().size(); ++at) {
    for (const int flip : {1, 128}) {
      std::string bytes = set.train();
      bytes[at] = static_cast<char>(bytes[at] ^ flip);
      const std::string error = set.error_with(bytes);
      CAPTURE(at);
      // Up to seven bytes between tokens and offsets hold nothing.
      const bool filler = at >= 128 && error.empty();
      CHECK((filler || !error.empty()));
      CHECK(error.find('\n') == std::string::npos);
      if (filler) CHECK(at + 8 >= set.train().size() - 8 * 10);
    }
  }
}

TEST_CASE("damaged dataset: files cut short or too long") {
  const Spoiled set;
  for (std::size_t size = 0; size < set.train().size(); ++size) {
    const std::string error = set.error_with(set.train().substr(0, size));
    CAPTURE(size);
    if (size < 128) {
      CHECK(error == fmt::format("{} bytes are too few for a dataset file", size));
    } else {
      CHECK(error.starts_with(fmt::format("{} bytes, but 9 samples of ", size)));
      CHECK(error.ends_with(
          fmt::format("tokens need {}: the file was cut short", set.train().size())));
    }
  }
  for (const std::size_t extra : {1, 8, 4096}) {
    const std::string error = set.error_with(set.train() + std::string(extra, '\0'));
    CHECK(
        error.starts_with(fmt::format("{} bytes, but 9 samples of ", set.train().size() + extra)));
    CHECK(error.ends_with(fmt::format("tokens need {}", set.train().size())));
  }
}

TEST_CASE("damaged dataset: headers with right checksums and wrong numbers") {
  const Spoiled set;
  const auto error = [&](std::size_t at, auto value) {
    return set.error_with(set.patched(at, value));
  };
  CHECK(set.error_with(std::string(500, 'x')) == "not a hax dataset file");
  CHECK(error(0, 'x') == "not a hax dataset file");
  CHECK(error(8, 2u) == "format version 2, this program reads version 1");
  CHECK(error(8, 0u) == "format version 0, this program reads version 1");
  CHECK(error(12, 3u) == "impossible header: split 3, origin 0, 1 bytes a token");
  CHECK(error(12, 1u) == "holds the split valid, expected train");
  CHECK(error(16, 2u) == "impossible header: split 0, origin 2, 1 bytes a token");
  CHECK(error(20, 2u) == "impossible header: split 0, origin 0, 2 bytes a token");
  CHECK(error(20, 0u) == "impossible header: split 0, origin 0, 0 bytes a token");
  CHECK(error(24, 0) == "impossible task in the header: --levels 0: expected 1 to 16");
  CHECK(error(24, -1) == "impossible task in the header: --levels -1: expected 1 to 16");
  CHECK(error(24, 1).starts_with("impossible task in the header: --contexts 1:2"));
  CHECK(error(28, 0) == "impossible task in the header: --values 0: expected at least 1");
  CHECK(error(28, INT32_MAX).starts_with("impossible task in the header: the task needs"));
  CHECK(error(32, 0).starts_with("impossible task in the header: --contexts 0:2"));
  CHECK(error(36, INT32_MAX).starts_with("impossible task in the header: the task needs"));
  CHECK(error(44, 1).starts_with("impossible task in the header: --keys 2:1"));
  CHECK(error(48, std::uint64_t{5})
            .ends_with("its task, seed or origin is not that of " + set.path().string()));
  CHECK(error(56, std::uint64_t{8}).find("but 8 samples") != std::string::npos);
  CHECK(error(56, UINT64_MAX).ends_with("need more than exist"));
  CHECK(error(64, UINT64_MAX).ends_with("need more than exist"));
  CHECK(error(56, (std::uint64_t{1} << 56) - 1).ends_with("the file was cut short"));
}

TEST_CASE("damaged dataset: offsets and tokens with right checksums and wrong numbers") {
  const Spoiled set;
  const std::size_t offsets = set.train().size() - 8 * 10;
  const auto error = [&](std::size_t at, auto value) {
    return set.error_with_manifest(set.patched(at, value));
  };
  CHECK(error(offsets, std::uint64_t{1}).starts_with("offsets run from 1 to "));
  CHECK(
      error(offsets + 72, std::uint64_t{1}).starts_with("offsets run from 0 to 1, expected 0 to "));
  CHECK(error(offsets + 16, UINT64_MAX).starts_with("sample 1 lies at "));
  CHECK(
      error(offsets + 8, std::uint64_t{0}).starts_with("sample 0 lies at 0 to 0, expected 12 to "));
  CHECK(error(offsets + 8, std::uint64_t{11})
            .starts_with("sample 0 lies at 0 to 11, expected 12 to"));
  CHECK(error(128, std::uint8_t{255}) == "sample 0 has token 255, the vocabulary ends at 214");
  CHECK(error(128, std::uint8_t{2}) == "sample 0: token 1: 2 (<2>), expected bos");
  CHECK(error(129, std::uint8_t{4}) == "sample 0: token 2: 4 (|), expected a context");

  // Reading a sample never gives tokens outside the vocabulary, even unverified.
  write_file(set.path(), set.patched(128, std::uint8_t{215}));
  const SplitFile file(set.path());
  CHECK(error_of([&] { sample_of(file, 0); }) ==
        set.path().string() + ": sample 0 has token 215, the vocabulary ends at 214");
  sample_of(file, 1);
}

TEST_CASE("damaged dataset: samples in the wrong place") {
  const TempFolder folder;
  const DatasetInfo info{.task = make_task(1, {}, Range{2, 2}, 9), .seed = 4};
  const auto write =
      [&](std::initializer_list<std::pair<Split, std::vector<std::int32_t>>> samples) {
        DatasetWriter writer(folder.path(), info, true);
        for (const auto& [split, tokens] : samples) {
          std::vector<std::byte> bytes(tokens.size());
          narrow(tokens, 1, bytes.data());
          const auto length = static_cast<std::int32_t>(tokens.size());
          writer.split(split).append(bytes, std::span(&length, 1));
        }
        writer.publish();
        return error_of([&] { verify_dataset(Dataset(folder.path())); });
      };
  const auto train = sample_of(StreamSource(info.task, 0, Split::train), 0);
  const auto valid = sample_of(StreamSource(info.task, 0, Split::valid), 0);
  CHECK(write({{Split::train, train}, {Split::valid, valid}}) == "");
  CHECK(write({{Split::train, valid}}) ==
        (folder / "train.hax").string() + ": sample 0: belongs to the split valid by its hash");
  CHECK(write({{Split::valid, valid}, {Split::train, train}, {Split::train, train}}) ==
        (folder / "train.hax").string() + ": sample 1: is train sample 0 again");
  CHECK(write({{Split::train, {1, 19, 10, 20, 10, 4, 19, 10, 20, 11}}}) ==
        (folder / "train.hax").string() +
            ": sample 0: token 10: value 1 where the first half has 0");
}

TEST_CASE("damaged dataset: folders and manifests") {
  const Spoiled set;
  const fs::path& folder = set.folder().path();
  const fs::path manifest = folder / "manifest.json";
  const std::string good = read_file(manifest);
  const auto open = [&] { return error_of([&] { Dataset dataset(folder); }); };
  const auto with = [&](const std::string& text) {
    write_file(manifest, text);
    const std::string error = open();
    write_file(manifest, good);
    return error;
  };
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    REQUIRE(text.find(from) != std::string::npos);
    return with(text.replace(text.find(from), from.size(), to));
  };
  const std::string path = manifest.string();
  CHECK(open() == "");
  CHECK(with("") == path + ": not JSON (byte 1)");
  CHECK(with("{") == path + ": not JSON (byte 2)");
  CHECK(with(good.substr(0, 100)).starts_with(path + ": not JSON (byte "));
  CHECK(with("[]") == path + ": does not describe the files beside it (at )");
  CHECK(with(std::string(100'000, ' ')) == path + ": 100000 bytes are too many for a manifest");
  CHECK(with(std::string(60'000, '[')).starts_with(path + ": not JSON (byte "));
  const std::string beside = path + ": does not describe the files beside it (at ";
  CHECK(changed("\"version\": 1", "\"version\": 2") == beside + "/version)");
  CHECK(changed("\"seed\": 0", "\"seed\": 1") == beside + "/seed)");
  CHECK(changed("\"samples\": 9", "\"samples\": 10") == beside + "/splits/train/samples)");
  CHECK(changed("\"seed\": 0", "\"sed\": 0").starts_with(beside));
  CHECK(changed("\"seed\": 0", "\"extra\": 0, \"seed\": 0") == beside + "/extra)");

  fs::remove(manifest);
  CHECK(open() ==
        folder.string() +
            ": no dataset here (manifest.json is missing); 'hax data generate' writes one");
  write_file(manifest, good);
  // A file of another dataset.
  const TempFolder other;
  generate_dataset(other.path(),
                   {.task = make_task(2, Range{1, 2}, Range{2, 3}, 200), .samples = {9, 6, 2}});
  fs::copy_file(other / "valid.hax", folder / "valid.hax", fs::copy_options::overwrite_existing);
  CHECK(open() == beside + "/splits/valid/samples)");
  fs::remove(folder / "valid.hax");
  CHECK(open() ==
        fmt::format("cannot read {}: No such file or directory", (folder / "valid.hax").string()));
  fs::create_directory(folder / "valid.hax");
  CHECK(open() == fmt::format("cannot read {}: not a file", (folder / "valid.hax").string()));
  CHECK(error_of([&] { Dataset dataset(folder / "nowhere"); }) ==
        (folder / "nowhere").string() + ": no such folder");
  CHECK(error_of([&] { Dataset dataset(manifest); }) == path + ": no such folder");
}
