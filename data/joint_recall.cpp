#include "data/joint_recall.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "engine/check.h"

namespace hax {
namespace {

// A sample is addressed by 32-bit positions, and a table must be worth holding in memory.
constexpr std::int64_t kMaxLength = std::int64_t{1} << 28;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 28;

constexpr std::uint64_t kMany = std::numeric_limits<std::uint64_t>::max();

std::uint64_t saturating_product(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? kMany : product;
}

std::uint64_t saturating_power(std::uint64_t base, std::int64_t exponent) {
  if (base == 1) return 1;
  std::uint64_t product = 1;
  for (std::int64_t i = 0; i < exponent && product != kMany; ++i) {
    product = saturating_product(product, base);
  }
  return product;
}

// Tokens of the largest table's sample; limited as it grows, so that nothing overflows.
std::int64_t length_of(const JointRecallTask& task, const TableSizes& sizes) {
  std::int64_t block = 2;  // key, value
  for (int level = task.levels - 1; level >= 0; --level) {
    block *= sizes[static_cast<std::size_t>(level)];
    if (block > kMaxLength) return 2 * kMaxLength;
    if (level > 0) ++block;
  }
  return 2 * block + 2;
}

TableSizes largest(const JointRecallTask& task) {
  TableSizes sizes;
  sizes.fill(1);
  for (int level = 0; level < task.levels; ++level) {
    sizes[static_cast<std::size_t>(level)] = task.range(level).hi;
  }
  return sizes;
}

void validate_range(Range range, std::string_view flag) {
  check_usage(1 <= range.lo && range.lo <= range.hi, "{} {}: expected a:b with 1 <= a <= b", flag,
              to_string(range));
}

// 0 -> a, 25 -> z, 26 -> aa, like the columns of a spreadsheet.
std::string letters(std::int32_t index, char first) {
  std::string text;
  for (std::int64_t rest = index; rest >= 0; rest = rest / 26 - 1) {
    text.insert(text.begin(), static_cast<char>(first + rest % 26));
  }
  return text;
}

}  // namespace

Range parse_range(std::string_view text, std::string_view flag) {
  const auto number = [](std::string_view digits, std::int32_t& value) {
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return result.ec == std::errc{} && result.ptr == digits.data() + digits.size();
  };
  Range range;
  const std::size_t colon = text.find(':');
  const bool ok = number(text.substr(0, colon), range.lo) &&
                  number(colon == text.npos ? text : text.substr(colon + 1), range.hi);
  check_usage(ok, "{} '{}': expected a:b, as in 5:16, or one number", flag, text);
  validate_range(range, flag);
  return range;
}

std::string to_string(Range range) { return fmt::format("{}:{}", range.lo, range.hi); }

std::string_view name_of(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::valid:
      return "valid";
    case Split::test:
      return "test";
  }
  return "?";
}

Split parse_split(std::string_view name) {
  for (const Split split : kSplits) {
    if (name == name_of(split)) return split;
  }
  throw UsageError(fmt::format("split '{}': expected train, valid or test", name));
}

void JointRecallTask::validate() const {
  check_usage(1 <= levels && levels <= kMaxLevels, "--levels {}: expected 1 to {}", levels,
              kMaxLevels);
  validate_range(contexts, "--contexts");
  validate_range(keys, "--keys");
  check_usage(values >= 1, "--values {}: expected at least 1", values);
  check_usage(levels > 1 || contexts == Range{1, 1},
              "--contexts {}: one level has keys only, no contexts", to_string(contexts));
  const std::int64_t vocabulary =
      std::int64_t{kFirstSymbol} + values + keys.hi + std::int64_t{levels - 1} * contexts.hi;
  check_usage(vocabulary <= kMaxVocabulary, "the task needs {} tokens, at most {} are possible",
              vocabulary, kMaxVocabulary);
  check_usage(length_of(*this, largest(*this)) <= kMaxLength,
              "samples of {} would be longer than {} tokens", to_string(*this), kMaxLength);
}

std::int32_t JointRecallTask::first_token(int level) const {
  if (level == levels - 1) return first_key();
  return first_key() + keys.hi + (levels - 2 - level) * contexts.hi;
}

std::int32_t JointRecallTask::vocab_size() const {
  return first_key() + keys.hi + (levels - 1) * contexts.hi;
}

std::int64_t JointRecallTask::fixed_length() const { return length_of(*this, largest(*this)); }

std::int64_t JointRecallTask::size_count() const {
  std::int64_t count = 1;
  for (int level = 0; level < levels; ++level) count *= range(level).count();
  return count;
}

TableSizes JointRecallTask::sizes(std::int64_t combination) const {
  TableSizes sizes;
  sizes.fill(1);
  for (int level = levels - 1; level >= 0; --level) {
    const Range choices = range(level);
    sizes[static_cast<std::size_t>(level)] =
        choices.lo + static_cast<std::int32_t>(combination % choices.count());
    combination /= choices.count();
  }
  return sizes;
}

std::int64_t JointRecallTask::length(const TableSizes& sizes) const {
  return length_of(*this, sizes);
}

std::int64_t JointRecallTask::entries(const TableSizes& sizes) const {
  std::int64_t count = 1;
  for (int level = 0; level < levels; ++level) count *= sizes[static_cast<std::size_t>(level)];
  return count;
}

std::uint64_t JointRecallTask::distinct_samples(const TableSizes& sizes) const {
  std::uint64_t orders = 1;
  std::int64_t blocks = 1;
  for (int level = 0; level < levels; ++level) {
    const std::int32_t size = sizes[static_cast<std::size_t>(level)];
    std::uint64_t factorial = 1;
    for (std::int32_t i = 2; i <= size && factorial != kMany; ++i) {
      factorial = saturating_product(factorial, static_cast<std::uint64_t>(i));
    }
    orders = saturating_product(orders, saturating_power(factorial, blocks));
    blocks *= size;
  }
  const std::uint64_t tables = saturating_power(static_cast<std::uint64_t>(values), blocks);
  return saturating_product(tables, saturating_product(orders, orders));
}

JointRecallTask make_task(std::int32_t levels, std::optional<Range> contexts,
                          std::optional<Range> keys, std::int32_t values) {
  JointRecallTask task;
  task.levels = levels;
  task.values = values;
  if (levels == 1) task.contexts = {1, 1};
  check_usage(levels != 1 || !contexts, "--contexts is not for --levels 1, which has keys only");
  if (contexts) task.contexts = *contexts;
  if (keys) task.keys = *keys;
  task.validate();
  return task;
}

std::string to_string(const JointRecallTask& task) {
  std::string text;
  if (task.levels != 2)
    text = fmt::format("{} level{}, ", task.levels, task.levels == 1 ? "" : "s");
  if (task.levels > 1) text += fmt::format("contexts {}, ", to_string(task.contexts));
  return text + fmt::format("keys {}, {} values", to_string(task.keys), task.values);
}

std::string to_string(const JointRecallTask& task, const TableSizes& sizes) {
  std::string text;
  for (int level = 0; level < task.levels; ++level) {
    const std::int32_t size = sizes[static_cast<std::size_t>(level)];
    text += fmt::format("{} {}{}", size, level == task.levels - 1 ? "key" : "context",
                        size == 1 ? "" : "s");
    if (level + 1 < task.levels) text += " x ";
  }
  return text;
}

std::string token_label(const JointRecallTask& task, std::int32_t token) {
  switch (token) {
    case kBosToken:
      return "bos";
    case kPadToken:
      return "pad";
    case kSepToken:
      return "|";
    default:
      break;
  }
  if (token < kFirstSymbol || token >= task.vocab_size()) return fmt::format("<{}>", token);
  if (token < task.first_key()) return fmt::format("{}", token - kFirstSymbol);
  if (task.is_key(token)) return letters(token - task.first_key(), 'a');
  const std::int32_t context = token - task.first_key() - task.keys.hi;
  return letters(context % task.contexts.hi, 'A') +
         std::string(static_cast<std::size_t>(context / task.contexts.hi), '\'');
}

namespace {

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

constexpr std::uint64_t coefficient(std::size_t position) {
  return mix((position + 1) * 0x9E3779B97F4A7C15u) | 1;
}

constexpr auto kCoefficients = [] {
  std::array<std::uint64_t, 2048> table{};
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = coefficient(i);
  return table;
}();

}  // namespace

std::uint64_t sample_hash(std::span<const std::int32_t> tokens) {
  const std::size_t known = std::min(tokens.size(), kCoefficients.size());
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < known; ++i) {
    sum += static_cast<std::uint32_t>(tokens[i]) * kCoefficients[i];
  }
  for (std::size_t i = known; i < tokens.size(); ++i) {
    sum += static_cast<std::uint32_t>(tokens[i]) * coefficient(i);
  }
  return mix(sum);
}

Split split_of(std::uint64_t hash) {
  const std::uint64_t residue = hash % 8;
  return residue == 0 ? Split::valid : residue == 1 ? Split::test : Split::train;
}

}  // namespace hax
