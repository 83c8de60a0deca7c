#include "ops/key_selection/key_selection.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

// Sorts every prefix by (score descending, position ascending) and takes the first `keys`.
std::vector<std::vector<std::int32_t>> naive(const Tensor& score, const Sequences& sequences,
                                             std::size_t keys) {
  std::vector<std::vector<std::int32_t>> lists;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const double* scores = score.data<double>() + sequences.begin(s);
    for (std::int64_t i = 0; i < sequences.length(s); ++i) {
      std::vector<std::int32_t> prefix(static_cast<std::size_t>(i) + 1);
      std::iota(prefix.begin(), prefix.end(), 0);
      std::ranges::stable_sort(prefix, [&](auto a, auto b) { return scores[a] > scores[b]; });
      prefix.resize(std::min(prefix.size(), keys));
      std::ranges::sort(prefix);
      lists.push_back(std::move(prefix));
    }
  }
  return lists;
}

template <class F>
Tensor scores_of(std::int64_t tokens, F score) {
  Tensor tensor = Tensor::empty({tokens}, DType::float64);
  for (std::int64_t t = 0; t < tokens; ++t) tensor.data<double>()[t] = score(t);
  return tensor;
}

}  // namespace

TEST_CASE("key selection keeps the best of every prefix") {
  const auto sequences = Sequences::of_lengths({0, 1, 60, 2, 0, 129});
  const std::int64_t tokens = sequences.tokens();
  const Tensor random = random_tensor({tokens}, 1);
  const Tensor orders[] = {
      random,
      scores_of(tokens, [](std::int64_t t) { return double(t); }),      // every key is admitted
      scores_of(tokens, [](std::int64_t t) { return -double(t); }),     // none after the first
      scores_of(tokens, [](std::int64_t) { return 0.25; }),             // the oldest stay
      scores_of(tokens, [](std::int64_t t) { return double(t % 3); }),  // ties at every level
      scores_of(tokens, [](std::int64_t t) { return -double(t % 7); }),
      scores_of(tokens, [](std::int64_t t) { return t % 2 == 0 ? 0.0 : -0.0; }),
      scores_of(tokens,
                [](std::int64_t t) {
                  const double infinity = std::numeric_limits<double>::infinity();
                  return t % 3 == 0 ? infinity : t % 3 == 1 ? -infinity : 1.0;
                }),
  };
  for (std::size_t order = 0; order < std::size(orders); ++order) {
    for (const std::int64_t keys : {1, 2, 3, 8, 31, 60, 1000}) {
      CAPTURE(order);
      CAPTURE(keys);
      const KeySet set = key_selection_keys(orders[order], sequences, keys);
      validate(set);
      CHECK(!set.banded());
      CHECK(to_lists(set) == naive(orders[order], sequences, static_cast<std::size_t>(keys)));
      // These scores are told apart in float32, too.
      const KeySet set32 = key_selection_keys(orders[order].to(DType::float32), sequences, keys);
      CHECK(same_bits(set32.death, set.death));
    }
  }
  CHECK(to_lists(key_selection_keys(random, sequences, std::numeric_limits<std::int64_t>::max())) ==
        to_lists(full_keys(sequences)));
}

TEST_CASE("a key dies where it is evicted, at once when it is never admitted") {
  const Tensor score = Tensor::from<float>({5, 1, 3, 3, 4, 0, 9});
  const KeySet set = key_selection_keys(score, Sequences::single(7), 3);
  const auto death = set.death.values<std::int32_t>();
  constexpr std::int32_t kForever = KeySet::kForever;
  // 3 evicts 1; 4 evicts the newer 3; 0 is refused; 9 evicts the older 3.
  CHECK(std::vector<std::int32_t>(death.begin(), death.end()) ==
        std::vector<std::int32_t>{kForever, 3, 6, 4, kForever, 5, kForever});
}

TEST_CASE("key selection does not look ahead") {
  const std::int64_t length = 80, cut = 37;
  Tensor score = random_tensor({length}, 2);
  const auto before = to_lists(key_selection_keys(score, Sequences::single(length), 5));
  for (std::int64_t t = cut; t < length; ++t) score.data<double>()[t] = 100 + double(t);
  const auto after = to_lists(key_selection_keys(score, Sequences::single(length), 5));
  CHECK(std::equal(before.begin(), before.begin() + cut, after.begin()));
  CHECK(before[cut] != after[cut]);
}

TEST_CASE("key selection refuses what does not fit") {
  const auto sequences = Sequences::of_lengths({2, 3});
  const Tensor score = random_tensor({5}, 1);
  CHECK(error_of([&] { key_selection_keys(score, sequences, 0); }) ==
        "key_selection: 0 keys wanted, expected at least 1");
  CHECK(error_of([&] {
          key_selection_keys(random_tensor({5, 1}, 1), sequences, 2);
        }) == "key_selection: the scores are float64 [5, 1], expected float32 or float64 [T]");
  CHECK(error_of([&] { key_selection_keys(Tensor::zeros({5}, DType::int32), sequences, 2); }) ==
        "key_selection: the scores are int32 [5], expected float32 or float64 [T]");
  CHECK(error_of([&] { key_selection_keys(random_tensor({4}, 1), sequences, 2); }) ==
        "key_selection: 4 rows for a pack of 5 tokens");
  // Also where the NaN would have been refused or never compared.
  for (const std::int64_t keys : {1, 9}) {
    Tensor bad = score.clone();
    bad.data<double>()[3] = std::numeric_limits<double>::quiet_NaN();
    CHECK(error_of([&] { key_selection_keys(bad, sequences, keys); }) ==
          "key_selection: the score of position 1 of sequence 1 is NaN, expected a number");
  }
}
