#include <fmt/format.h>

#include <algorithm>

#include "engine/random.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
#include "ops/select_rows/select_rows.h"
#include "tools/explain/examples.h"

namespace hax::explain {
namespace {

constexpr std::int64_t kLength = 10, kKeys = 3;

Sequences tokens() { return Sequences::single(kLength); }

// Ten numbers of a row, under the heads of the picture's columns.
template <class T>
std::string strip(const std::string& name, const Tensor& x, const char* format) {
  std::string text = fmt::format("  {:<14}", name);
  for (std::int64_t j = 0; j < kLength; ++j) {
    const T value = x.data<T>()[j];
    text += fmt::format(fmt::runtime(format), value);
  }
  return text + "\n";
}

std::string times(const std::string& name, const Tensor& x) {
  std::string text = fmt::format("  {:<14}", name);
  for (std::int64_t j = 0; j < kLength; ++j) {
    const std::int32_t t = x.data<std::int32_t>()[j];
    text += t == KeySet::kForever ? "  never" : fmt::format("{:7}", t);
  }
  return text + "\n";
}

std::string heads() {
  std::string text = fmt::format("  {:<14}", "key j");
  for (std::int64_t j = 0; j < kLength; ++j) text += fmt::format("{:7}", j);
  return text + "\n";
}

// A line a query, a mark where it sees the key.
std::string picture(const KeySet& keys) {
  const auto lists = to_lists(keys);
  std::string text;
  for (std::int64_t i = 0; i < kLength; ++i) {
    text += fmt::format("  query {:<8}", i);
    for (std::int32_t j = 0; j < kLength; ++j) {
      const bool seen = std::ranges::count(lists[static_cast<std::size_t>(i)], j) > 0;
      text += fmt::format("{:>7}", seen ? "#" : j <= i ? "." : "");
    }
    text += "\n";
  }
  return text;
}

Tensor draw(Shape shape, std::uint64_t seed) {
  Tensor x = Tensor::empty(shape, DType::float64);
  fill_normal(x, {.seed = seed, .purpose = Purpose::test});
  return x;
}

KeySet selected(const Tensor& score) { return key_selection_keys(score, tokens(), kKeys); }

std::string key_selection_example() {
  const Tensor score = draw({kLength}, 3);
  const KeySet keys = selected(score);
  return fmt::format("the {} best keys so far of {} tokens: # is seen, . is not\n\n", kKeys,
                     kLength) +
         heads() + strip<double>("score", score, "{:7.2f}") + times("leaves at", keys.death) +
         "\n" + picture(keys) +
         "\nA key is seen from its own query on, until better ones have pushed it out.\n";
}

struct Hashed {
  Tensor query_bin, key_bin;
  KeySet keys;
};

Hashed hashed() {
  const Tensor hash = draw({4, 2}, 11);
  const auto bins = [&](std::uint64_t seed) {
    return lsh_bins(draw({kLength, 4}, seed), hash, tokens(), LshRule::sign_bits, LshCenter::causal,
                    NormMode::causal);
  };
  const Tensor q = bins(12), k = bins(13);
  return {q, k, lsh_keys(q, k, tokens(), 2)};
}

std::string lsh_example() {
  const Hashed h = hashed();
  return fmt::format(
             "random Q and K of {} tokens, 2 sign bits, so 4 bins;\n"
             "a query sees the 2 most recent keys of its bin: # is seen, . is not\n\n",
             kLength) +
         heads() + strip<std::int64_t>("bin of key", h.key_bin, "{:7}") +
         times("expires at", h.keys.expire) +
         strip<std::int64_t>("bin of query", h.query_bin, "{:7}") + "\n" + picture(h.keys) +
         "\nA key expires where the second later key of its bin comes.\n";
}

std::string key_set_example() {
  const KeySet window = window_keys(tokens(), kKeys), sink = sink_keys(tokens(), 2);
  const KeySet both = unite(hashed().keys, selected(draw({kLength}, 3)));
  return "a window of 3 and a sink of 2: pure intervals, united by the later death\n\n" + heads() +
         times("window", window.death) + times("sink", sink.death) +
         times("both", unite(window, sink).death) + "\n" + picture(unite(window, sink)) +
         "\nHAX: key selection (an interval) united with hashing (a band inside the bins)\n\n" +
         heads() + times("death", both.death) + times("expires at", both.expire) +
         strip<std::int64_t>("bin of key", both.key_bin, "{:7}") +
         strip<std::int64_t>("bin of query", both.query_bin, "{:7}") + "\n" + picture(both) +
         "\nThree integers a key say all of it: nothing of size L x L is kept.\n";
}

std::string select_rows_example() {
  const Tensor x = draw({4, 3}, 5), rows = Tensor::from<std::int32_t>({2, 0, 2});
  return "rows 2, 0 and 2 of a table\n\n" + matrix_text("x", x) +
         matrix_text("y = select_rows(x, {2, 0, 2})", select_rows(x, rows)) +
         "\nNothing is computed, so nothing has a gradient.\n";
}

}  // namespace

std::string keys_text(const std::string& op) {
  if (op == "key_selection") return key_selection_example();
  if (op == "lsh") return lsh_example();
  if (op == "key_set") return key_set_example();
  if (op == "select_rows") return select_rows_example();
  return "";
}

}  // namespace hax::explain
