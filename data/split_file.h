// One split of a dataset on the disk: a header, the tokens of all samples end to end, and the
// places where they begin. Byte by byte: docs/data_format.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/files.h"
#include "data/joint_recall.h"
#include "data/sample_source.h"

namespace hax {

/// Where a dataset comes from: drawn by this program from a seed, or read from text files. Splits
/// of generated data follow split_of().
enum class Origin : std::uint8_t { generated, imported };
std::string_view name_of(Origin origin);

/// What all files of a dataset have in common.
struct DatasetInfo {
  JointRecallTask task;
  Origin origin = Origin::generated;
  std::uint64_t seed = 0;  ///< 0 when imported
  bool operator==(const DatasetInfo&) const = default;
};

/// Bytes of a stored token: 1, 2 or 4, as the vocabulary needs.
int token_bytes(const JointRecallTask& task);
/// Stores tokens little-endian; `out` has tokens.size() * bytes places.
void narrow(std::span<const std::int32_t> tokens, int bytes, std::byte* out);

/// Writes a split, sample by sample or block by block. Nothing is visible before publish().
class SplitWriter {
 public:
  SplitWriter(const std::filesystem::path& path, const DatasetInfo& info, Split split);

  /// Asks for room for this many samples and tokens; optional.
  void reserve(std::int64_t samples, std::int64_t tokens);
  /// Adds samples: their narrowed tokens, and the number of tokens of each.
  void append(std::span<const std::byte> tokens, std::span<const std::int32_t> lengths);
  /// Completes the file on the disk.
  void finish();
  void publish() { file_.publish(); }

  std::int64_t samples() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  std::int64_t tokens() const { return static_cast<std::int64_t>(offsets_.back()); }
  /// Checksum of the header, which holds the checksums of all else; known after finish().
  std::uint64_t checksum() const { return checksum_; }
  std::string name() const { return file_.path().filename().string(); }

 private:
  struct Hash;

  DatasetInfo info_;
  Split split_;
  OutputFile file_;
  std::shared_ptr<Hash> tokens_hash_;  // of all tokens so far
  std::vector<std::uint64_t> offsets_{0};
  std::uint64_t checksum_ = 0;
};

/// A split in the file, memory-mapped: any sample at once.
class SplitFile : public SampleSource {
 public:
  /// Checks the header, the file's size and the offsets. Throws Error that names the file when it
  /// is damaged, cut short, too long, or of another version.
  explicit SplitFile(const std::filesystem::path& path);

  const DatasetInfo& info() const { return info_; }
  Split split() const { return split_; }
  std::int64_t samples() const { return samples_; }
  std::int64_t tokens() const { return tokens_; }
  std::uint64_t checksum() const { return checksum_; }
  const std::filesystem::path& path() const { return path_; }

  const JointRecallTask& task() const override { return info_.task; }
  std::optional<std::int64_t> count() const override { return samples_; }
  /// Throws Error for a token outside the vocabulary.
  void sample(std::int64_t index, std::vector<std::int32_t>& tokens) const override;

  /// Reads all tokens and throws Error when their checksum is wrong.
  void check_tokens() const;

 private:
  [[noreturn]] void fail(std::string_view what) const;

  std::filesystem::path path_;
  MappedFile file_;
  DatasetInfo info_;
  Split split_ = Split::train;
  int token_bytes_ = 1;
  std::int64_t samples_ = 0, tokens_ = 0;
  std::uint64_t checksum_ = 0, tokens_checksum_ = 0;
  const std::byte* data_ = nullptr;
  const std::uint64_t* offsets_ = nullptr;
};

}  // namespace hax
