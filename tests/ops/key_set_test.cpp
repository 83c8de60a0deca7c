#include "ops/key_set/key_set.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "engine/random.h"
#include "ops/key_set/key_sweep.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

using Lists = std::vector<std::vector<std::int32_t>>;
constexpr std::int64_t kMany = std::numeric_limits<std::int64_t>::max();

// Asks for every pair of a query and an earlier key of its sequence.
template <class Sees>
Lists enumerate(const Sequences& sequences, Sees sees) {
  Lists lists;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t i = 0; i < sequences.length(s); ++i) {
      std::vector<std::int32_t> list;
      for (std::int64_t j = 0; j <= i; ++j) {
        if (sees(i, j)) list.push_back(static_cast<std::int32_t>(j));
      }
      lists.push_back(std::move(list));
    }
  }
  return lists;
}

std::vector<Sequences> packs() {
  return {Sequences::single(0), Sequences::single(1), Sequences::single(40),
          Sequences::of_lengths({0, 7, 0, 1, 23, 0})};
}

// What the band of `keys` would admit, by the definition alone.
Lists enumerate_definition(const KeySet& keys) {
  Lists lists;
  for (std::int64_t s = 0; s < keys.sequences.count(); ++s) {
    const std::int64_t begin = keys.sequences.begin(s);
    for (std::int64_t i = 0; i < keys.sequences.length(s); ++i) {
      lists.emplace_back();
      for (std::int64_t j = 0; j <= i; ++j) {
        bool sees = i < keys.death.data<std::int32_t>()[begin + j];
        if (keys.banded()) {
          sees |= keys.query_bin.data<std::int64_t>()[begin + i] ==
                      keys.key_bin.data<std::int64_t>()[begin + j] &&
                  i < keys.expire.data<std::int32_t>()[begin + j];
        }
        if (sees) lists.back().push_back(static_cast<std::int32_t>(j));
      }
    }
  }
  return lists;
}

// A valid set with arbitrary deaths, bins and expiries.
KeySet random_set(const Sequences& sequences, std::uint32_t bins, std::uint64_t seed) {
  RandomStream random({.seed = seed});
  const std::int64_t tokens = sequences.tokens();
  KeySet keys;
  keys.sequences = sequences;
  for (Tensor* column : {&keys.death, &keys.expire, &keys.order}) {
    *column = Tensor::empty({tokens}, DType::int32);
  }
  keys.query_bin = Tensor::empty({tokens}, DType::int64);
  keys.key_bin = Tensor::empty({tokens}, DType::int64);
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s);
    const auto length = static_cast<std::uint32_t>(sequences.length(s));
    std::int32_t* order = keys.order.data<std::int32_t>() + begin;
    std::int64_t* key_bin = keys.key_bin.data<std::int64_t>() + begin;
    for (std::uint32_t j = 0; j < length; ++j) {
      const auto end = static_cast<std::int32_t>(j + random.below(10));
      const bool forever = random.below(8) == 0, never = random.below(4) == 0;
      keys.death.data<std::int32_t>()[begin + j] = forever ? KeySet::kForever
                                                   : never ? static_cast<std::int32_t>(j)
                                                           : end;
      key_bin[j] = static_cast<std::int64_t>(random.below(bins)) - 1;
      keys.query_bin.data<std::int64_t>()[begin + j] = random.below(bins + 1);
      order[j] = static_cast<std::int32_t>(j);
    }
    std::stable_sort(order, order + length,
                     [&](auto a, auto b) { return key_bin[a] < key_bin[b]; });
    std::int32_t latest = 0;
    for (std::uint32_t p = 0; p < length; ++p) {
      if (p > 0 && key_bin[order[p - 1]] != key_bin[order[p]]) latest = 0;
      latest = std::max(latest, order[p] + static_cast<std::int32_t>(random.below(12)));
      keys.expire.data<std::int32_t>()[begin + order[p]] = latest;
    }
  }
  return keys;
}

// The lists of a sweep that asks for every step-th query, sorted; empty lists for the others.
Lists swept(const KeySet& keys, std::int32_t step) {
  Lists lists(static_cast<std::size_t>(keys.sequences.tokens()));
  KeySweep sweep(keys);
  for (std::int64_t s = 0; s < keys.sequences.count(); ++s) {
    sweep.enter(s);
    for (std::int32_t i = 0; i < keys.sequences.length(s); i += step) {
      const auto list = sweep.keys_of(i);
      auto& copy = lists[static_cast<std::size_t>(keys.sequences.begin(s) + i)];
      copy.assign(list.begin(), list.end());
      std::ranges::sort(copy);
    }
  }
  return lists;
}

KeySet broken(void (*damage)(KeySet&)) {
  KeySet keys = random_set(Sequences::of_lengths({3, 12}), 3, 1);
  damage(keys);
  return keys;
}

}  // namespace

TEST_CASE("full, window and sink keys are those of their rules") {
  for (const Sequences& sequences : packs()) {
    CHECK(to_lists(full_keys(sequences)) == enumerate(sequences, [](auto, auto) { return true; }));
    for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{2}, std::int64_t{7},
                                    std::int64_t{1000}, std::int64_t{KeySet::kForever}, kMany}) {
      CAPTURE(keys);
      CHECK(to_lists(window_keys(sequences, keys)) ==
            enumerate(sequences, [=](auto i, auto j) { return i - j < keys; }));
      CHECK(to_lists(sink_keys(sequences, keys)) ==
            enumerate(sequences, [=](auto, auto j) { return j < keys; }));
    }
  }
}

TEST_CASE("dilated keys are the most recent of the grid") {
  for (const Sequences& sequences : packs()) {
    for (const std::int64_t dilation :
         {std::int64_t{1}, std::int64_t{2}, std::int64_t{5}, std::int64_t{100}, kMany}) {
      for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{3}, std::int64_t{50}, kMany}) {
        CAPTURE(dilation);
        CAPTURE(keys);
        const auto on_grid = [=](std::int64_t j) { return j % dilation == dilation - 1; };
        const auto sees = [=](std::int64_t i, std::int64_t j) {
          std::int64_t later = 0;
          for (std::int64_t k = j + 1; k <= i; ++k) later += on_grid(k) ? 1 : 0;
          return on_grid(j) && later < keys;
        };
        CHECK(to_lists(dilated_keys(sequences, dilation, keys)) == enumerate(sequences, sees));
      }
    }
  }
}

TEST_CASE("deaths near the end of int32 saturate") {
  const auto sequences = Sequences::single(3);
  const auto death = [](const KeySet& keys, std::int64_t j) {
    return keys.death.data<std::int32_t>()[j];
  };
  const KeySet window = window_keys(sequences, KeySet::kForever - 1);
  CHECK(death(window, 0) == KeySet::kForever - 1);
  CHECK(death(window, 1) == KeySet::kForever);
  CHECK(death(window, 2) == KeySet::kForever);
  CHECK(death(dilated_keys(sequences, 2, KeySet::kForever / 2), 1) == KeySet::kForever);
  CHECK(death(dilated_keys(sequences, 2, 1000), 1) == 2001);
}

TEST_CASE("a union admits what either set admits, once") {
  for (const Sequences& sequences : packs()) {
    const KeySet both = unite(sink_keys(sequences, 3), window_keys(sequences, 4));
    CHECK(to_lists(both) ==
          enumerate(sequences, [](auto i, auto j) { return j < 3 || i - j < 4; }));
    const KeySet grid = unite(dilated_keys(sequences, 3, 2), window_keys(sequences, 4));
    CHECK(to_lists(grid) == enumerate(sequences, [](std::int64_t i, std::int64_t j) {
            return i - j < 4 || (j % 3 == 2 && i < j + 6);
          }));

    const KeySet band = random_set(sequences, 4, 3), window = window_keys(sequences, 2);
    const Lists of_band = to_lists(band), of_window = to_lists(window);
    Lists expected(of_band.size());
    for (std::size_t t = 0; t < expected.size(); ++t) {
      std::ranges::set_union(of_band[t], of_window[t], std::back_inserter(expected[t]));
    }
    for (const KeySet& all : {unite(band, window), unite(window, band)}) {
      validate(all);
      CHECK(all.banded());
      CHECK(to_lists(all) == expected);
    }
  }
}

TEST_CASE("unite refuses two bands and different packs") {
  const auto sequences = Sequences::of_lengths({3, 4});
  const KeySet band = random_set(sequences, 2, 1);
  CHECK(error_of([&] { unite(band, band); }) ==
        "unite: both sets have a band, expected at most one");
  for (const Sequences& other : {Sequences::of_lengths({4, 3}), Sequences::single(7),
                                 Sequences::of_lengths({3, 4}, {3, 5})}) {
    CHECK(error_of([&] { unite(band, full_keys(other)); }) ==
          "unite: the two sets are of different packs");
  }
}

TEST_CASE("selectors refuse counts below one") {
  const auto sequences = Sequences::single(3);
  CHECK(error_of([&] { window_keys(sequences, 0); }) ==
        "window_keys: 0 keys wanted, expected at least 1");
  CHECK(error_of([&] { sink_keys(sequences, -1); }) ==
        "sink_keys: -1 keys wanted, expected at least 1");
  CHECK(error_of([&] { dilated_keys(sequences, 2, 0); }) ==
        "dilated_keys: 0 keys wanted, expected at least 1");
  CHECK(error_of([&] { dilated_keys(sequences, 0, 2); }) ==
        "dilated_keys: the dilation is 0, expected at least 1");
}

TEST_CASE("lists and sweeps follow the definition for arbitrary sets") {
  for (const Sequences& sequences : packs()) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      const KeySet keys = random_set(sequences, 1 + static_cast<std::uint32_t>(seed % 6), seed);
      validate(keys);
      const Lists expected = enumerate_definition(keys);
      CHECK(to_lists(keys) == expected);
      CHECK(swept(keys, 1) == expected);
      Lists every_third = expected;
      for (std::int64_t s = 0; s < sequences.count(); ++s) {
        for (std::int64_t i = 0; i < sequences.length(s); ++i) {
          if (i % 3 != 0) every_third[static_cast<std::size_t>(sequences.begin(s) + i)].clear();
        }
      }
      CHECK(swept(keys, 3) == every_third);
    }
  }
}

TEST_CASE("a sweep hands out the same order whichever queries it is asked for") {
  const KeySet keys = random_set(Sequences::single(60), 3, 5);
  KeySweep all(keys), some(keys);
  all.enter(0);
  some.enter(0);
  for (std::int32_t i = 0; i < 60; ++i) {
    const auto list = all.keys_of(i);
    if (i % 7 == 3) CHECK(std::ranges::equal(list, some.keys_of(i)));
  }
}

TEST_CASE("shared keys come first and leave the lists what they are") {
  for (const Sequences& sequences : packs()) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      const KeySet keys = random_set(sequences, 3, seed);
      const Lists expected = enumerate_definition(keys);
      for (const std::int32_t step : {1, 3}) {
        KeySweep sweep(keys);
        for (std::int64_t s = 0; s < sequences.count(); ++s) {
          sweep.enter(s);
          const auto length = static_cast<std::int32_t>(sequences.length(s));
          for (std::int32_t first = 0; first < length; first += 5 * step) {
            // Four queries share, a fifth comes after them.
            const std::int32_t last = std::min(first + 3 * step, length - 1);
            const std::size_t shared = sweep.share(first, last);
            std::size_t seen_by_all = 0;
            const std::int32_t* death = keys.death.data<std::int32_t>() + sequences.begin(s);
            for (std::int32_t j = 0; j <= first; ++j) seen_by_all += death[j] > last ? 1 : 0;
            CHECK(shared == seen_by_all);
            std::vector<std::int32_t> common;
            for (std::int32_t i = first; i < std::min(first + 5 * step, length); i += step) {
              const auto list = sweep.keys_of(i);
              const auto front = list.first(i <= last ? shared : 0);
              if (i == first) common.assign(front.begin(), front.end());
              if (i <= last) CHECK(std::ranges::equal(common, front));
              std::vector<std::int32_t> sorted(list.begin(), list.end());
              std::ranges::sort(sorted);
              CHECK(sorted == expected[static_cast<std::size_t>(sequences.begin(s) + i)]);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("validate names what is wrong") {
  const auto error = [](void (*damage)(KeySet&)) {
    return error_of([=] { validate(broken(damage)); });
  };
  CHECK(error([](KeySet&) {}).empty());
  CHECK(error([](KeySet& k) { k.death = {}; }) == "key_set: death is missing");
  CHECK(error([](KeySet& k) { k.death = Tensor::zeros({15}); }) ==
        "key_set: death is float32 [15], expected int32 [15]");
  CHECK(error([](KeySet& k) { k.expire = {}; }) ==
        "key_set: expire is missing from a set with a band");
  CHECK(error([](KeySet& k) { k.key_bin = {}; }) ==
        "key_set: key_bin is missing from a set with a band");
  CHECK(error([](KeySet& k) { k.order = Tensor::zeros({14}, DType::int32); }) ==
        "key_set: order is int32 [14], expected int32 [15]");
  CHECK(error([](KeySet& k) { k.death.data<std::int32_t>()[3 + 5] = 4; }) ==
        "key_set: position 5 of sequence 1 dies at 4, expected 5 or later");
  CHECK(error([](KeySet& k) { k.expire.data<std::int32_t>()[3 + 6] = 5; }) ==
        "key_set: position 6 of sequence 1 expires at 5, expected 6 or later");
  CHECK(error([](KeySet& k) { k.order.data<std::int32_t>()[2] = 3; }) ==
        "key_set: order of sequence 0 holds 3, expected 0..2");
  CHECK(error([](KeySet& k) {
          std::int32_t* order = k.order.data<std::int32_t>() + 3;
          order[1] = order[0];
        }).find("is not sorted by (bin, position)") != std::string::npos);
  CHECK(error([](KeySet& k) {
          for (std::int64_t t = 0; t < 15; ++t) k.key_bin.data<std::int64_t>()[t] = 0;
          for (std::int32_t j = 0; j < 12; ++j) {
            k.order.data<std::int32_t>()[3 + j] = j;
            k.expire.data<std::int32_t>()[3 + j] = j == 1 ? 20 : 15;
          }
          for (std::int32_t j = 0; j < 3; ++j) {
            k.order.data<std::int32_t>()[j] = j;
            k.expire.data<std::int32_t>()[j] = 9;
          }
        }) ==
        "key_set: in sequence 1 position 2 expires at 15, before the older 1 of its bin at 20");
}
