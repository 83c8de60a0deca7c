#include "data/generator.h"

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "data/sample_source.h"
#include "engine/check.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

// docs/data_format.md once more, as plainly as possible and for two levels only.
class PlainGenerator {
 public:
  PlainGenerator(const JointRecallTask& task, std::uint64_t seed, std::uint64_t slot)
      : task_(task),
        stream_({.seed = seed,
                 .step = static_cast<std::uint32_t>(slot >> 32),
                 .sequence = static_cast<std::uint32_t>(slot),
                 .purpose = Purpose::sample}) {
    const auto combination =
        slot % static_cast<std::uint64_t>(task.contexts.count() * task.keys.count());
    const auto keys = static_cast<std::uint64_t>(task.keys.count());
    contexts_ = task.contexts.lo + static_cast<std::int32_t>(combination / keys);
    keys_ = task.keys.lo + static_cast<std::int32_t>(combination % keys);
  }

  std::vector<std::int32_t> next() {
    std::vector<std::uint64_t> bounds(static_cast<std::size_t>(contexts_ * keys_),
                                      static_cast<std::uint64_t>(task_.values));
    const auto table = batches(bounds, bounds.size());
    std::vector<std::int32_t> tokens{1};
    for (int half = 0; half < 2; ++half) {
      if (half == 1) tokens.push_back(4);
      for (const std::int32_t c : order(contexts_)) {
        tokens.push_back(10 + task_.values + task_.keys.hi + c);
        for (const std::int32_t k : order(keys_)) {
          tokens.push_back(10 + task_.values + k);
          tokens.push_back(
              10 + static_cast<std::int32_t>(table[static_cast<std::size_t>(c * keys_ + k)]));
        }
      }
    }
    return tokens;
  }

 private:
  // Integers below the bounds, which go on beyond the `count` that are wanted; the last bound
  // repeats.
  std::vector<std::uint64_t> batches(const std::vector<std::uint64_t>& bounds, std::size_t count) {
    std::vector<std::uint64_t> result;
    std::size_t next = 0;
    while (result.size() < count) {
      unsigned __int128 product = 1;
      std::vector<std::uint64_t> batch;
      while (true) {
        const std::uint64_t bound = next < bounds.size() ? bounds[next] : bounds.back();
        if (product * bound > (std::uint64_t{1} << 60)) break;
        product *= bound;
        batch.push_back(bound);
        ++next;
      }
      unsigned __int128 scaled;
      do {
        std::uint64_t x = stream_.next();
        x |= static_cast<std::uint64_t>(stream_.next()) << 32;
        scaled = x * product;
      } while (static_cast<std::uint64_t>(scaled) <
               static_cast<std::uint64_t>((static_cast<unsigned __int128>(1) << 64) % product));
      // The integer part, written in the mixed radix of the bounds, first digit first.
      auto number = static_cast<std::uint64_t>(scaled >> 64);
      auto rest = static_cast<std::uint64_t>(product);
      for (const std::uint64_t bound : batch) {
        rest /= bound;
        if (result.size() < count) result.push_back(number / rest);
        number %= rest;
      }
    }
    return result;
  }

  std::vector<std::int32_t> order(std::int32_t count) {
    std::vector<std::uint64_t> bounds;
    for (std::uint64_t b = 2; b < 200; ++b) bounds.push_back(b);
    const auto picks = batches(bounds, static_cast<std::size_t>(count - 1));
    std::vector<std::int32_t> result;
    for (std::int32_t i = 0; i < count; ++i) {
      result.push_back(i);
      if (i > 0) std::swap(result.back(), result[picks[static_cast<std::size_t>(i - 1)]]);
    }
    return result;
  }

  JointRecallTask task_;
  RandomStream stream_;
  std::int32_t contexts_, keys_;
};

std::vector<std::int32_t> drawn(const JointRecallTask& task, std::uint64_t seed,
                                std::uint64_t slot) {
  SampleGenerator generator(task, seed);
  std::vector<std::int32_t> tokens;
  generator.start(slot);
  generator.draw(tokens);
  return tokens;
}

// Sum of (observed - expected)^2 / expected.
double chi_square(const std::vector<std::int64_t>& counts) {
  double total = 0, result = 0;
  for (const std::int64_t count : counts) total += static_cast<double>(count);
  const double expected = total / static_cast<double>(counts.size());
  for (const std::int64_t count : counts) {
    const double difference = static_cast<double>(count) - expected;
    result += difference * difference / expected;
  }
  return result;
}

}  // namespace

TEST_CASE("generator: equals the documented procedure written plainly") {
  const JointRecallTask tasks[] = {JointRecallTask{}, make_task(2, Range{1, 4}, Range{30, 33}, 7),
                                   make_task(2, Range{45, 46}, Range{1, 2}, 1 << 20)};
  for (const JointRecallTask& task : tasks) {
    for (const std::uint64_t slot : {0ull, 1ull, 143ull, 144ull, 77777ull, (5ull << 32) + 3}) {
      CAPTURE(slot);
      PlainGenerator plain(task, 0x123456789abcdef0u, slot);
      SampleGenerator generator(task, 0x123456789abcdef0u);
      generator.start(slot);
      std::vector<std::int32_t> tokens;
      for (int attempt = 0; attempt < 5; ++attempt) {
        const std::uint64_t hash = generator.draw(tokens);
        CHECK(tokens == plain.next());
        CHECK(hash == sample_hash(tokens));
      }
    }
  }
}

TEST_CASE("generator: every sample is one of the task, with the sizes of its slot") {
  const JointRecallTask tasks[] = {JointRecallTask{},
                                   make_task(1, {}, Range{1, 40}, 3),
                                   make_task(2, Range{1, 3}, Range{1, 2}, 1),
                                   make_task(3, Range{1, 3}, Range{2, 4}, 5),
                                   make_task(4, Range{1, 2}, Range{1, 3}, 300),
                                   make_task(6, Range{2, 2}, Range{1, 2}, 70'000)};
  for (const JointRecallTask& task : tasks) {
    SampleGenerator generator(task, 7);
    std::vector<std::int32_t> tokens;
    for (std::uint64_t slot = 0; slot < 300; ++slot) {
      generator.start(slot);
      for (const Split split : kSplits) {
        if (task.values == 1) {
          generator.draw(tokens);
        } else if (task.distinct_samples(task.sizes(static_cast<std::int64_t>(slot))) > 4096) {
          CHECK(split_of(generator.draw(split, tokens)) == split);
        } else {
          generator.draw(tokens);
        }
        const SampleCheck result = check_sample(task, tokens);
        CHECK(result.fault == "");
        CHECK(result.sizes == task.sizes(static_cast<std::int64_t>(slot) % task.size_count()));
        CHECK(static_cast<std::int64_t>(tokens.size()) == task.length(result.sizes));
      }
    }
  }
}

TEST_CASE("generator: a slot's sample depends on nothing but task, seed and slot") {
  const JointRecallTask task;
  const StreamSource stream(task, 3, Split::train);
  std::vector<std::vector<std::int32_t>> forwards(50), backwards(50);
  for (std::int64_t i = 0; i < 50; ++i) stream.sample(i, forwards[static_cast<std::size_t>(i)]);
#pragma omp parallel for schedule(dynamic, 1) num_threads(3)
  for (int i = 49; i >= 0; --i) stream.sample(i, backwards[static_cast<std::size_t>(i)]);
  CHECK(forwards == backwards);

  CHECK(drawn(task, 3, 5) == drawn(task, 3, 5));
  CHECK(drawn(task, 3, 5) != drawn(task, 4, 5));
  CHECK(drawn(task, 3, 5) != drawn(task, 3, 5 + 144));
  // Every bit of a seed and a slot counts.
  std::set<std::vector<std::int32_t>> all;
  for (int bit = 0; bit < 64; ++bit) {
    all.insert(drawn(make_task(1, {}, Range{16, 16}, 16), 1ull << bit, 0));
    all.insert(drawn(make_task(1, {}, Range{16, 16}, 16), 0, 1ull << bit));
  }
  CHECK(all.size() == 128);
}

TEST_CASE("generator: the numbers are those of version 1 for ever") {
  // Datasets and training runs are named by their seed alone.
  std::uint64_t sum = 0;
  std::vector<std::int32_t> tokens;
  SampleGenerator generator(JointRecallTask{}, 0);
  for (const Split split : kSplits) {
    for (std::uint64_t slot = 0; slot < 300; ++slot) {
      generator.start(slot);
      sum = sum * 31 + generator.draw(split, tokens);
    }
  }
  CHECK(sum == 11828662132781309703u);
}

TEST_CASE("generator: values and orders are uniform") {
  // 99.9 % quantiles of chi-square: 23 degrees 49.7, 6 degrees 22.5, 24 degrees 51.2. The draws are
  // the same every time, so the tests cannot fail by chance later.
  const JointRecallTask task = make_task(1, {}, Range{4, 4}, 7);
  SampleGenerator generator(task, 11);
  std::vector<std::int32_t> tokens;
  std::map<std::vector<std::int32_t>, std::int64_t> orders[2];
  std::vector<std::int64_t> values(7);
  for (std::uint64_t slot = 0; slot < 20'000; ++slot) {
    generator.start(slot);
    generator.draw(tokens);
    for (std::size_t half = 0; half < 2; ++half) {
      const std::size_t begin = 1 + 9 * half;
      ++orders[half][{tokens[begin], tokens[begin + 2], tokens[begin + 4], tokens[begin + 6]}];
    }
    for (std::size_t i = 2; i < 9; i += 2) ++values[static_cast<std::size_t>(tokens[i] - 10)];
  }
  for (const auto& half : orders) {
    std::vector<std::int64_t> counts;
    for (const auto& [order, count] : half) counts.push_back(count);
    CHECK(counts.size() == 24);
    CHECK(chi_square(counts) < 49.7);
  }
  CHECK(chi_square(values) < 22.5);

  // An order of 25 takes two words: every entry is equally often first, and last.
  const JointRecallTask wide = make_task(1, {}, Range{25, 25}, 2);
  SampleGenerator wide_generator(wide, 5);
  std::vector<std::int64_t> first(25), last(25);
  for (std::uint64_t slot = 0; slot < 10'000; ++slot) {
    wide_generator.start(slot);
    wide_generator.draw(tokens);
    ++first[static_cast<std::size_t>(tokens[1] - wide.first_key())];
    ++last[static_cast<std::size_t>(tokens[49] - wide.first_key())];
  }
  CHECK(chi_square(first) < 51.2);
  CHECK(chi_square(last) < 51.2);
}

TEST_CASE("generator: splits take an eighth, an eighth and the rest") {
  SampleGenerator generator(JointRecallTask{}, 1);
  std::vector<std::int32_t> tokens;
  std::array<int, 3> counts{};
  for (std::uint64_t slot = 0; slot < 8000; ++slot) {
    generator.start(slot);
    ++counts[static_cast<std::size_t>(split_of(generator.draw(tokens)))];
  }
  CHECK(counts[1] == doctest::Approx(1000).epsilon(0.09));  // 3 standard deviations
  CHECK(counts[2] == doctest::Approx(1000).epsilon(0.09));
  CHECK(counts[0] + counts[1] + counts[2] == 8000);
}

TEST_CASE("generator: streams of different splits never meet, whatever their seeds") {
  const JointRecallTask task = make_task(2, Range{2, 2}, Range{2, 2}, 2);  // 16 * 8 * 8 samples
  std::set<std::vector<std::int32_t>> seen[3];
  for (const Split split : kSplits) {
    for (const std::uint64_t seed : {0, 1}) {
      const StreamSource stream(task, seed, split);
      for (std::int64_t i = 0; i < 4000; ++i) {
        std::vector<std::int32_t> tokens;
        stream.sample(i, tokens);
        seen[static_cast<std::size_t>(split)].insert(tokens);
      }
    }
  }
  // 8,000 draws meet every one of 1,024 samples; none is in two sets.
  std::set<std::vector<std::int32_t>> all;
  for (const auto& set : seen) all.insert(set.begin(), set.end());
  CHECK(all.size() == 1024);
  CHECK(seen[0].size() + seen[1].size() + seen[2].size() == 1024);
  const SplitCounts supply = count_by_split(task, task.sizes(0));
  for (const Split split : kSplits) {
    const auto s = static_cast<std::size_t>(split);
    CHECK(seen[s].size() == supply[s]);
  }
}

TEST_CASE("generator: counting draws every sample once") {
  const JointRecallTask task = make_task(3, Range{2, 2}, Range{2, 2}, 1);
  const TableSizes sizes = task.sizes(0);
  const SplitCounts counts = count_by_split(task, sizes);
  CHECK(task.distinct_samples(sizes) == 128 * 128);  // (2 * 2^2 * 2^4)^2 orders
  CHECK(counts[0] + counts[1] + counts[2] == 128 * 128);
  // Seen from the other side: random draws meet exactly as many.
  const JointRecallTask one = make_task(1, {}, Range{3, 3}, 2);
  std::set<std::vector<std::int32_t>> seen;
  SampleGenerator generator(one, 0);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 6000; ++i) {
    generator.draw(tokens);
    seen.insert(tokens);
  }
  CHECK(seen.size() == 8 * 6 * 6);
  CHECK(one.distinct_samples(one.sizes(0)) == 8 * 6 * 6);
}

TEST_CASE("generator: too few distinct samples are refused with the counts") {
  const JointRecallTask task = make_task(2, Range{1, 1}, Range{2, 2}, 2);
  const SplitCounts supply = count_by_split(task, task.sizes(0));
  CHECK(supply[0] + supply[1] + supply[2] == 16);
  require_supply(task, supply);
  CHECK(
      error_of([&] {
        require_supply(task, {supply[0] + 1, 0, 0});
      }) ==
      fmt::format("too few distinct samples: tables of 1 context x 2 keys have 16 in all, {} of "
                  "them train, and {} are wanted; widen the sizes or the values, or ask for fewer "
                  "samples",
                  supply[0], supply[0] + 1));
  CHECK_THROWS_AS(require_supply(task, {0, supply[1] + 1, 0}), UsageError);
  CHECK_THROWS_AS(require_supply(task, {0, 0, supply[2] + 1}), UsageError);
  CHECK_THROWS_AS(require_supply(task, {1u << 30, 0, 0}), UsageError);
  require_supply(JointRecallTask{}, {1u << 30, 1u << 30, 1u << 30});

  // Only the smallest of several combinations runs out: slots 0, 4, 8 have one key of 2 values.
  const JointRecallTask mixed = make_task(1, {}, Range{1, 4}, 2);
  const SplitCounts smallest = count_by_split(mixed, mixed.sizes(0));
  CHECK(smallest[0] == 2);
  require_supply(mixed, {8, 0, 0});
  CHECK(error_of([&] {
          require_supply(mixed, {9, 0, 0});
        }).starts_with("too few distinct samples: tables of 1 key have 2 in all, 2 of them train"));
  // A stream asks for one of each.
  CHECK_THROWS_AS(StreamSource(mixed, 0, Split::valid), UsageError);
  const StreamSource train(mixed, 0, Split::train);
  CHECK(train.count() == std::nullopt);
}

TEST_CASE("generator: a stream with an end") {
  const StreamSource stream(JointRecallTask{}, 0, Split::valid, 10);
  CHECK(stream.count() == 10);
  std::vector<std::int32_t> tokens;
  stream.sample(9, tokens);
  CHECK(error_of([&] { stream.sample(10, tokens); }) ==
        "valid sample 10 of a stream of 10 does not exist");
  CHECK_THROWS_AS(stream.sample(-1, tokens), Error);
  CHECK_THROWS_AS(StreamSource(JointRecallTask{}, 0, Split::valid, -1), UsageError);
  CHECK_THROWS_AS(StreamSource(make_task(2, Range{2, 1}, {}, 4), 0, Split::valid), UsageError);
}
