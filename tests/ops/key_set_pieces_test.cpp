// A sequence that comes in pieces, with the keys that nobody can see any more dropped in between.
#include <doctest/doctest.h>

#include <functional>

#include "engine/random.h"
#include "ops/join_rows/join_rows.h"
#include "ops/key_selection/key_selection.h"
#include "ops/key_set/key_set.h"
#include "ops/lsh/lsh.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

// What selectors know of some rows.
struct Known {
  Sequences sequences;
  Tensor position, score, query_bin, key_bin;
};

using Select = std::function<KeySet(const Known&)>;

// Random rows; scores and bins repeat, so that there are ties and full bins.
Known draw(const Sequences& sequences, std::uint64_t seed) {
  RandomStream random({.seed = seed});
  Known known{sequences, {}, {}, {}, {}};
  std::vector<std::int64_t> position, query_bin, key_bin;
  std::vector<double> score;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t p = 0; p < sequences.length(s); ++p) {
      position.push_back(p);
      score.push_back(random.below(12));
      query_bin.push_back(random.below(3));
      key_bin.push_back(random.below(3));
    }
  }
  known.position = Tensor::from(position);
  known.score = Tensor::from(score);
  known.query_bin = Tensor::from(query_bin);
  known.key_bin = Tensor::from(key_bin);
  return known;
}

template <class T>
Tensor pick(const Tensor& from, const std::vector<std::int64_t>& rows) {
  std::vector<T> picked;
  for (const std::int64_t row : rows) picked.push_back(from.data<T>()[row]);
  return Tensor::from(picked);
}

Known pick(const Known& from, const Sequences& sequences, const std::vector<std::int64_t>& rows) {
  return {sequences, pick<std::int64_t>(from.position, rows), pick<double>(from.score, rows),
          pick<std::int64_t>(from.query_bin, rows), pick<std::int64_t>(from.key_bin, rows)};
}

// The positions that each query sees, pieces of at most `step` rows after one another.
std::vector<std::vector<std::int32_t>> lists_of_pieces(const Known& whole, const Select& select,
                                                       std::int64_t step, std::int64_t& kept) {
  std::vector<std::vector<std::int32_t>> lists(static_cast<std::size_t>(whole.sequences.tokens()));
  const std::int64_t count = whole.sequences.count();
  std::vector<std::vector<std::int64_t>> past(static_cast<std::size_t>(count));  // pack rows
  std::int64_t longest = 0;
  for (std::int64_t s = 0; s < count; ++s) longest = std::max(longest, whole.sequences.length(s));
  for (std::int64_t first = 0; first < longest; first += step) {
    std::vector<std::int64_t> rows, lengths;
    for (std::int64_t s = 0; s < count; ++s) {
      const std::size_t before = rows.size();
      auto& mine = past[static_cast<std::size_t>(s)];
      rows.insert(rows.end(), mine.begin(), mine.end());
      const std::int64_t last = std::min(first + step, whole.sequences.length(s));
      for (std::int64_t p = first; p < last; ++p) rows.push_back(whole.sequences.begin(s) + p);
      lengths.push_back(static_cast<std::int64_t>(rows.size() - before));
    }
    const Sequences joined = Sequences::of_lengths(lengths);
    const KeySet keys = select(pick(whole, joined, rows));
    validate(keys);
    const auto found = to_lists(keys);
    for (std::int64_t s = 0; s < count; ++s) {
      past[static_cast<std::size_t>(s)].clear();
      for (std::int64_t t = joined.begin(s); t < joined.end(s); ++t) {
        const std::int64_t row = rows[static_cast<std::size_t>(t)];
        if (whole.position.data<std::int64_t>()[row] < first) continue;
        auto& list = lists[static_cast<std::size_t>(row)];
        for (const std::int32_t j : found[static_cast<std::size_t>(t)]) {
          const std::int64_t key = rows[static_cast<std::size_t>(joined.begin(s) + j)];
          list.push_back(static_cast<std::int32_t>(whole.position.data<std::int64_t>()[key]));
        }
      }
    }
    const Tensor surviving = surviving_rows(keys);
    kept = std::max(kept, surviving.numel());
    for (const std::int32_t t : surviving.values<std::int32_t>()) {
      std::int64_t s = 0;
      while (t >= joined.end(s)) ++s;
      past[static_cast<std::size_t>(s)].push_back(rows[static_cast<std::size_t>(t)]);
    }
  }
  return lists;
}

KeySet window(const Known& k) { return window_keys(k.sequences, 4, k.position); }
KeySet sink(const Known& k) { return sink_keys(k.sequences, 3, k.position); }
KeySet dilated(const Known& k) { return dilated_keys(k.sequences, 3, 2, k.position); }
KeySet best(const Known& k) { return key_selection_keys(k.score, k.sequences, 3); }
KeySet hashed(const Known& k) { return lsh_keys(k.query_bin, k.key_bin, k.sequences, 2); }

}  // namespace

TEST_CASE("every selector goes on from the surviving keys as from all of them") {
  struct Selector {
    const char* name;
    Select select;
    std::int64_t most;  // surviving keys of a sequence
  };
  const std::vector<Selector> selectors{
      {"full", [](const Known& k) { return full_keys(k.sequences); }, 60},
      {"window", window, 3},
      {"sink", sink, 3},
      {"dilated", dilated, 2},
      {"key selection", best, 3},
      {"lsh", hashed, 6},
      {"window and sink", [](const Known& k) { return unite(window(k), sink(k)); }, 6},
      {"window and dilated", [](const Known& k) { return unite(window(k), dilated(k)); }, 5},
      {"lsh and key selection", [](const Known& k) { return unite(hashed(k), best(k)); }, 9},
  };
  for (const Sequences& sequences :
       {Sequences::single(60), Sequences::of_lengths({0, 7, 1, 23, 0})}) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Known whole = draw(sequences, seed);
      for (const Selector& selector : selectors) {
        const auto expected = to_lists(selector.select(whole));
        for (const std::int64_t step : {1, 2, 5, 16, 100}) {
          INFO(selector.name << ", " << sequences.count() << " sequences, pieces of " << step
                             << ", seed " << seed);
          std::int64_t kept = 0;
          CHECK(lists_of_pieces(whole, selector.select, step, kept) == expected);
          CHECK(kept <= selector.most * sequences.count());
        }
      }
    }
  }
}

TEST_CASE("positions of dropped rows must fit and increase") {
  const Sequences sequences = Sequences::of_lengths({2, 1});
  const auto positions = [](std::vector<std::int64_t> p) { return Tensor::from(p); };
  CHECK(error_of([&] {
          window_keys(sequences, 1, positions({0, 1}));
        }) == "key_set: positions are int64 [2], expected int64 [3]");
  CHECK(error_of([&] {
          window_keys(sequences, 1, positions({5, 5, 0}));
        }) == "key_set: position 5 of sequence 0 follows 5, expected a larger one");
  CHECK(error_of([&] {
          sink_keys(sequences, 1, positions({0, 1, -2}));
        }) == "key_set: position -2 of sequence 1 follows -1, expected a larger one");
}
