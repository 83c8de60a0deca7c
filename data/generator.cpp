#include "data/generator.h"

#include <algorithm>

#include "engine/check.h"

namespace hax {
namespace {

// Bounded integers come in batches, each from one word, with a product of bounds up to this.
constexpr std::uint64_t kBatchLimit = std::uint64_t{1} << 60;

// The product of a batch with one more bound, or 0 when that is too much.
std::uint64_t extended(std::uint64_t product, std::uint64_t bound) {
  std::uint64_t next = 0;
  return __builtin_mul_overflow(product, bound, &next) || next > kBatchLimit ? 0 : next;
}

// The batches of a permutation have the bounds 2..19, 20..31, and so on, however many are used.
constexpr std::int32_t kFirstBatchEnd = 19;
constexpr std::uint64_t kFirstBatchProduct = 121'645'100'408'832'000;  // 19!

// Where a sample takes its choices from: random words.
class RandomChoices {
 public:
  RandomChoices(RandomStream& stream, BoundedBatch values) : stream_(stream), values_(values) {}

  void uniform(std::int32_t bound, std::int32_t* out, std::int64_t count) {
    if (bound == 1) return void(std::fill_n(out, count, 0));
    for (std::int64_t i = 0; i < count;) {
      std::uint64_t fraction = fair_word(values_.product);
      for (const std::int64_t end = std::min<std::int64_t>(i + values_.count, count); i < end;
           ++i) {
        out[i] = take(fraction, static_cast<std::uint64_t>(bound));
      }
    }
  }

  // Inside-out Fisher-Yates: entry i changes places with one of 0..i.
  void permutation(std::int32_t* out, std::int32_t count) {
    out[0] = 0;
    std::int32_t batch_end = kFirstBatchEnd;
    std::uint64_t product = kFirstBatchProduct;
    for (std::int32_t i = 1; i < count;) {
      std::uint64_t fraction = fair_word(product);
      for (const std::int32_t end = std::min(batch_end, count); i < end; ++i) {
        const std::int32_t pick = take(fraction, static_cast<std::uint64_t>(i) + 1);
        out[i] = out[pick];
        out[pick] = i;
      }
      if (i < count) {
        product = 1;
        while (const std::uint64_t next =
                   extended(product, static_cast<std::uint64_t>(batch_end) + 1)) {
          product = next;
          ++batch_end;
        }
      }
    }
  }

 private:
  // A word that serves a batch without bias. word * product, modulo 2^64, is the fraction that the
  // batch will leave; the smallest 2^64 mod product of them are one too many.
  std::uint64_t fair_word(std::uint64_t product) {
    for (;;) {
      std::uint64_t word = stream_.next();
      word |= static_cast<std::uint64_t>(stream_.next()) << 32;
      const std::uint64_t rest = word * product;
      if (rest >= product || rest >= -product % product) return word;
    }
  }

  // The next integer of a batch: the integer part of bound times the fraction (of 2^64) that is
  // left.
  static std::int32_t take(std::uint64_t& fraction, std::uint64_t bound) {
    const auto scaled = static_cast<unsigned __int128>(fraction) * bound;
    fraction = static_cast<std::uint64_t>(scaled);
    return static_cast<std::int32_t>(scaled >> 64);
  }

  RandomStream& stream_;
  BoundedBatch values_;  // all that fit with the bound of values
};

// Where a sample takes its choices from: the digits of a number, so that 0 .. distinct_samples - 1
// give every sample once.
class DigitChoices {
 public:
  explicit DigitChoices(std::uint64_t number) : rest_(number) {}

  void uniform(std::int32_t bound, std::int32_t* out, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = digit(bound);
  }
  void permutation(std::int32_t* out, std::int32_t count) {
    for (std::int32_t k = 0; k < count; ++k) {
      const std::int32_t pick = digit(k + 1);
      out[k] = out[pick];
      out[pick] = k;
    }
  }

 private:
  std::int32_t digit(std::int32_t bound) {
    const auto b = static_cast<std::uint64_t>(bound);
    const auto value = static_cast<std::int32_t>(rest_ % b);
    rest_ /= b;
    return value;
  }

  std::uint64_t rest_;
};

template <class Choices>
class SampleWriter {
 public:
  SampleWriter(const JointRecallTask& task, const TableSizes& sizes, Choices choices,
               std::vector<std::int32_t>& scratch)
      : task_(task), sizes_(sizes), choices_(choices) {
    const std::int64_t entries = task.entries(sizes);
    std::int64_t needed = entries;
    for (int level = 0; level < task.levels; ++level) needed += sizes[index(level)];
    if (static_cast<std::int64_t>(scratch.size()) < needed) {
      scratch.resize(static_cast<std::size_t>(needed));
    }
    table_ = scratch.data();
    orders_ = table_ + entries;
    choices_.uniform(task.values, table_, entries);
  }

  void write(std::vector<std::int32_t>& tokens) {
    tokens.resize(static_cast<std::size_t>(task_.length(sizes_)));
    out_ = tokens.data();
    *out_++ = kBosToken;
    blocks(0, 0, orders_);
    *out_++ = kSepToken;
    blocks(0, 0, orders_);
  }

 private:
  static std::size_t index(int level) { return static_cast<std::size_t>(level); }

  // The blocks of one level; `row` counts those of the levels outside.
  void blocks(int level, std::int64_t row, std::int32_t* order) {
    const std::int32_t count = sizes_[index(level)], first = task_.first_token(level);
    choices_.permutation(order, count);
    row *= count;
    if (level == task_.levels - 1) {
      std::int32_t* out = out_;
      for (std::int32_t i = 0; i < count; ++i) {
        out[2 * i] = first + order[i];
        out[2 * i + 1] = kFirstSymbol + table_[row + order[i]];
      }
      out_ = out + 2 * count;
      return;
    }
    for (std::int32_t i = 0; i < count; ++i) {
      *out_++ = first + order[i];
      blocks(level + 1, row + order[i], order + count);
    }
  }

  const JointRecallTask& task_;
  const TableSizes& sizes_;
  Choices choices_;
  std::int32_t* table_;
  std::int32_t* orders_;
  std::int32_t* out_ = nullptr;
};

RandomKey slot_key(std::uint64_t seed, std::uint64_t slot) {
  return {.seed = seed,
          .step = static_cast<std::uint32_t>(slot >> 32),
          .sequence = static_cast<std::uint32_t>(slot),
          .purpose = Purpose::sample};
}

}  // namespace

SampleGenerator::SampleGenerator(const JointRecallTask& task, std::uint64_t seed)
    : task_(task), seed_(seed), stream_(slot_key(seed, 0)) {
  task.validate();
  const auto values = static_cast<std::uint64_t>(task.values);
  if (values > 1) {
    while (const std::uint64_t next = extended(values_batch_.product, values)) {
      values_batch_.product = next;
      ++values_batch_.count;
    }
  }
  start(0);
}

void SampleGenerator::start(std::uint64_t slot) {
  stream_ = RandomStream(slot_key(seed_, slot));
  const auto combinations = static_cast<std::uint64_t>(task_.size_count());
  sizes_ = task_.sizes(static_cast<std::int64_t>(slot % combinations));
}

std::uint64_t SampleGenerator::draw(std::vector<std::int32_t>& tokens) {
  SampleWriter writer(task_, sizes_, RandomChoices(stream_, values_batch_), scratch_);
  writer.write(tokens);
  return sample_hash(tokens);
}

std::uint64_t SampleGenerator::draw(Split split, std::vector<std::int32_t>& tokens) {
  for (int attempt = 0; attempt < 1 << 20; ++attempt) {
    const std::uint64_t hash = draw(tokens);
    if (split_of(hash) == split) return hash;
  }
  throw Error(
      fmt::format("no sample of split {} in 2^20 draws of {}", name_of(split), to_string(task_)));
}

SplitCounts count_by_split(const JointRecallTask& task, const TableSizes& sizes) {
  SplitCounts counts{};
  std::vector<std::int32_t> scratch, tokens;
  const std::uint64_t distinct = task.distinct_samples(sizes);
  for (std::uint64_t number = 0; number < distinct; ++number) {
    SampleWriter(task, sizes, DigitChoices(number), scratch).write(tokens);
    ++counts[static_cast<std::size_t>(split_of(sample_hash(tokens)))];
  }
  return counts;
}

// A split has an eighth of the samples or more, up to chance: wanting less than a sixteenth of
// 4,096 or more can be trusted to luck (12 standard deviations), all else is counted. Counting
// costs at most 16 times as much as drawing the samples that are wanted.
void require_supply(const JointRecallTask& task, const SplitCounts& wanted) {
  const auto combinations = static_cast<std::uint64_t>(task.size_count());
  const std::uint64_t most = *std::max_element(wanted.begin(), wanted.end());
  const auto plenty = [&task](const TableSizes& sizes, std::uint64_t slots) {
    const std::uint64_t distinct = task.distinct_samples(sizes);
    return distinct >= 4096 && distinct / 16 >= slots;
  };
  // Larger tables have more samples, so the first combination has the fewest.
  if (plenty(task.sizes(0), most / combinations + 1)) return;
  for (std::uint64_t c = 0; c < combinations && c < most; ++c) {
    const auto slots = [&](std::uint64_t n) { return n / combinations + (c < n % combinations); };
    const TableSizes sizes = task.sizes(static_cast<std::int64_t>(c));
    if (plenty(sizes, slots(most))) continue;
    const SplitCounts supply = count_by_split(task, sizes);
    for (const Split split : kSplits) {
      const auto s = static_cast<std::size_t>(split);
      check_usage(
          slots(wanted[s]) <= supply[s],
          "too few distinct samples: tables of {} have {} in all, {} of them {}, and {} are "
          "wanted; widen the sizes or the values, or ask for fewer samples",
          to_string(task, sizes), task.distinct_samples(sizes), supply[s], name_of(split),
          slots(wanted[s]));
    }
  }
}

}  // namespace hax
