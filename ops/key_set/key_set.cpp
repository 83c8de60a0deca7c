#include "ops/key_set/key_set.h"

#include <algorithm>
#include <utility>

#include "engine/dispatch.h"
#include "ops/key_set/key_set_kernels.h"

namespace hax {
namespace {

constexpr std::int32_t kForever = KeySet::kForever;

// position + distance, or kForever when no int32 position lies that far.
std::int32_t later(std::int64_t position, std::int64_t distance) {
  if (distance >= kForever - position) return kForever;
  return static_cast<std::int32_t>(position + distance);
}

// The set in which key j of every sequence dies at death_of(j).
template <class F>
KeySet interval_keys(const Sequences& sequences, F death_of) {
  KeySet keys;
  keys.sequences = sequences;
  keys.death = Tensor::empty({sequences.tokens()}, DType::int32);
  auto* death = keys.death.data<std::int32_t>();
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t j = 0; j < sequences.length(s); ++j) *death++ = death_of(j);
  }
  return keys;
}

void require_keys(const char* op, std::int64_t keys) {
  check(keys >= 1, "{}: {} keys wanted, expected at least 1", op, keys);
}

bool same_sequences(const Sequences& a, const Sequences& b) {
  if (a.count() != b.count()) return false;
  for (std::int64_t s = 0; s < a.count(); ++s) {
    if (a.length(s) != b.length(s) || a.padded(s) != b.padded(s)) return false;
  }
  return true;
}

void require_column(const char* name, const Tensor& column, DType dtype, std::int64_t tokens) {
  check(column.defined(), "key_set: {} is missing from a set with a band", name);
  check(column.dtype() == dtype && column.shape() == Shape{tokens},
        "key_set: {} is {} {}, expected {} [{}]", name, name_of(column.dtype()), column.shape(),
        name_of(dtype), tokens);
}

// order lists (bin, position) in strictly increasing order, hence every position once.
void validate_band(const KeySet& keys, std::int64_t s) {
  const std::int64_t begin = keys.sequences.begin(s), length = keys.sequences.length(s);
  const std::int64_t* bin = keys.key_bin.data<std::int64_t>() + begin;
  const std::int32_t* expire = keys.expire.data<std::int32_t>() + begin;
  const std::int32_t* order = keys.order.data<std::int32_t>() + begin;
  for (std::int64_t p = 0; p < length; ++p) {
    const std::int32_t j = order[p];
    check(j >= 0 && j < length, "key_set: order of sequence {} holds {}, expected 0..{}", s, j,
          length - 1);
    check(expire[j] >= j, "key_set: position {} of sequence {} expires at {}, expected {} or later",
          j, s, expire[j], j);
    if (p == 0) continue;
    const std::int32_t before = order[p - 1];
    check(std::pair(bin[before], before) < std::pair(bin[j], j),
          "key_set: order of sequence {} is not sorted by (bin, position): {} follows {}", s, j,
          before);
    check(bin[before] != bin[j] || expire[before] <= expire[j],
          "key_set: in sequence {} position {} expires at {}, before the older {} of its bin at {}",
          s, j, expire[j], before, expire[before]);
  }
}

}  // namespace

KeySet full_keys(const Sequences& sequences) {
  return interval_keys(sequences, [](std::int64_t) { return kForever; });
}

KeySet window_keys(const Sequences& sequences, std::int64_t keys) {
  require_keys("window_keys", keys);
  return interval_keys(sequences, [=](std::int64_t j) { return later(j, keys); });
}

KeySet sink_keys(const Sequences& sequences, std::int64_t keys) {
  require_keys("sink_keys", keys);
  return interval_keys(sequences,
                       [=](std::int64_t j) { return j < keys ? kForever : later(j, 0); });
}

KeySet dilated_keys(const Sequences& sequences, std::int64_t dilation, std::int64_t keys) {
  require_keys("dilated_keys", keys);
  check(dilation >= 1, "dilated_keys: the dilation is {}, expected at least 1", dilation);
  // A key on the grid dies where the keys-th later one appears, `keys` steps on.
  const std::int64_t reach = keys > kForever / dilation ? kForever : keys * dilation;
  return interval_keys(sequences, [=](std::int64_t j) {
    return j % dilation == dilation - 1 ? later(j, reach) : later(j, 0);
  });
}

KeySet unite(const KeySet& a, const KeySet& b) {
  check(!a.banded() || !b.banded(), "unite: both sets have a band, expected at most one");
  check(same_sequences(a.sequences, b.sequences), "unite: the two sets are of different packs");
  check(a.death.device() == b.death.device(), "unite: one set is on {}, the other on {}",
        name_of(a.death.device()), name_of(b.death.device()));
  KeySet both = a.banded() ? a : b;
  both.death = Tensor::empty(a.death.shape(), DType::int32, a.death.device());
  on_device(a.death.device(),
            [&](auto device) { unite_deaths(device, a.death, b.death, both.death); });
  return both;
}

// Keys are handed out in order of position to the two ranges of queries that see them, so every
// list comes out sorted and without duplicates.
std::vector<std::vector<std::int32_t>> to_lists(const KeySet& keys) {
  validate(keys);
  std::vector<std::vector<std::int32_t>> lists(static_cast<std::size_t>(keys.sequences.tokens()));
  std::vector<std::pair<std::int64_t, std::int32_t>> queries;  // (bin, position), sorted
  for (std::int64_t s = 0; s < keys.sequences.count(); ++s) {
    const std::int64_t begin = keys.sequences.begin(s);
    const auto length = static_cast<std::int32_t>(keys.sequences.length(s));
    const std::int32_t* death = keys.death.data<std::int32_t>() + begin;
    queries.clear();
    for (std::int32_t i = 0; keys.banded() && i < length; ++i) {
      queries.emplace_back(keys.query_bin.data<std::int64_t>()[begin + i], i);
    }
    std::ranges::sort(queries);
    for (std::int32_t j = 0; j < length; ++j) {
      const auto give_to = [&](std::int32_t i) {
        lists[static_cast<std::size_t>(begin + i)].push_back(j);
      };
      for (std::int32_t i = j; i < std::min(death[j], length); ++i) give_to(i);
      if (!keys.banded()) continue;
      const std::int64_t bin = keys.key_bin.data<std::int64_t>()[begin + j];
      const std::int32_t expire = keys.expire.data<std::int32_t>()[begin + j];
      auto query = std::ranges::lower_bound(queries, std::pair(bin, death[j]));
      for (; query != queries.end() && query->first == bin && query->second < expire; ++query) {
        give_to(query->second);
      }
    }
  }
  return lists;
}

void validate(const KeySet& keys) {
  const std::int64_t tokens = keys.sequences.tokens();
  check(keys.death.defined(), "key_set: death is missing");
  require_column("death", keys.death, DType::int32, tokens);
  if (keys.banded()) {
    require_column("query_bin", keys.query_bin, DType::int64, tokens);
    require_column("key_bin", keys.key_bin, DType::int64, tokens);
    require_column("expire", keys.expire, DType::int32, tokens);
    require_column("order", keys.order, DType::int32, tokens);
  } else {
    check(!keys.query_bin.defined() && !keys.expire.defined() && !keys.order.defined(),
          "key_set: key_bin is missing from a set with a band");
  }
  for (std::int64_t s = 0; s < keys.sequences.count(); ++s) {
    const std::int32_t* death = keys.death.data<std::int32_t>() + keys.sequences.begin(s);
    for (std::int64_t j = 0; j < keys.sequences.length(s); ++j) {
      check(death[j] >= j, "key_set: position {} of sequence {} dies at {}, expected {} or later",
            j, s, death[j], j);
    }
    if (keys.banded()) validate_band(keys, s);
  }
}

}  // namespace hax
