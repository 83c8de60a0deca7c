// The joint recall task: what a sample looks like. With w levels, levels 1..w-1 are contexts and
// level w holds the keys; w = 1 is multi-query associative recall, w = 2 joint recall.
//
//   bos  block of level 1 ... block of level 1  sep  the same table again, in another order
//
// A block of level l < w is a context token followed by the blocks of level l + 1 inside it; a
// block of level w is a key and its value. Docs: docs/data_format.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace hax {

inline constexpr std::int32_t kBosToken = 1, kPadToken = 3, kSepToken = 4, kFirstSymbol = 10;

/// lo..hi, both included.
struct Range {
  std::int32_t lo = 1, hi = 1;
  std::int64_t count() const { return std::int64_t{hi} - lo + 1; }
  bool contains(std::int64_t n) const { return lo <= n && n <= hi; }
  bool operator==(const Range&) const = default;
};

/// "a:b" with 1 <= a <= b, or "a" for "a:a". Throws UsageError that names `flag`.
Range parse_range(std::string_view text, std::string_view flag);
std::string to_string(Range range);

/// Which part of the data a sample belongs to.
enum class Split : std::uint8_t { train, valid, test };
inline constexpr std::array kSplits{Split::train, Split::valid, Split::test};
/// "train", "valid" or "test".
std::string_view name_of(Split split);
/// Throws UsageError for other names.
Split parse_split(std::string_view name);

inline constexpr int kMaxLevels = 16;

/// How many entries each level of one table has; entries past the task's levels are 1.
using TableSizes = std::array<std::int32_t, kMaxLevels>;

/// Parameters of the task and the token layout that follows from them.
struct JointRecallTask {
  std::int32_t levels = 2;
  Range contexts{5, 16};     ///< entries of every level but the last; 1:1 when there is none
  Range keys{5, 16};         ///< entries of the last level
  std::int32_t values = 16;  ///< size of the value vocabulary

  bool operator==(const JointRecallTask&) const = default;

  /// Throws UsageError that says which parameter is out of range.
  void validate() const;

  Range range(int level) const { return level == levels - 1 ? keys : contexts; }
  /// First token of a level (0 .. levels-1). Tokens in order: values, keys, then the contexts from
  /// the innermost level to the outermost.
  std::int32_t first_token(int level) const;
  std::int32_t first_key() const { return kFirstSymbol + values; }
  bool is_key(std::int32_t token) const {
    return token >= first_key() && token < first_key() + keys.hi;
  }
  /// Smallest vocabulary a model needs.
  std::int32_t vocab_size() const;
  /// Length of the largest table's sample; shorter ones are padded to it in the released format.
  std::int64_t fixed_length() const;

  /// Every combination of sizes, the last level fastest; slot i of a split uses combination
  /// i mod size_count().
  std::int64_t size_count() const;
  TableSizes sizes(std::int64_t combination) const;
  /// Tokens of a sample, bos and sep included.
  std::int64_t length(const TableSizes& sizes) const;
  /// Values in the table = masked positions of a sample.
  std::int64_t entries(const TableSizes& sizes) const;
  /// Number of distinct samples of one combination: tables x orders x orders. 2^64 - 1 stands for
  /// that many or more.
  std::uint64_t distinct_samples(const TableSizes& sizes) const;
};

/// The task of the flags --levels --contexts --keys --values, validated. Throws UsageError for
/// --contexts at one level, where no context exists.
JointRecallTask make_task(std::int32_t levels, std::optional<Range> contexts,
                          std::optional<Range> keys, std::int32_t values);

/// "contexts 5:16, keys 5:16, 16 values" and, unless there are two, the levels.
std::string to_string(const JointRecallTask& task);
/// "5 contexts x 7 keys"
std::string to_string(const JointRecallTask& task, const TableSizes& sizes);

/// A token for the eye: values 0, 1, ...; keys a, b, ...; contexts A, B, ... of the innermost
/// level, A', B', ... one level further out, and so on; "|" for sep.
std::string token_label(const JointRecallTask& task, std::int32_t token);

/// Whether `tokens` (unpadded) is a sample of the task, and of which table.
struct SampleCheck {
  TableSizes sizes{};
  std::string fault;  ///< empty when it is; else what is wrong, with the position
};
/// Checks tokens, nesting, sizes, that nothing occurs twice in its block, and that both halves list
/// the same table.
SampleCheck check_sample(const JointRecallTask& task, std::span<const std::int32_t> tokens);

/// 64-bit hash of a sample's tokens: mix(sum over positions i of token_i * odd(mix((i+1) * phi))),
/// modulo 2^64, where mix is the finaliser of splitmix64, odd sets the lowest bit and phi =
/// 0x9E3779B97F4A7C15. A sum, so that it can be computed in any order, position by position.
std::uint64_t sample_hash(std::span<const std::int32_t> tokens);
/// Residue modulo 8 of the hash: 0 validation, 1 test, else train. No sample is in two splits.
Split split_of(std::uint64_t hash);

}  // namespace hax
