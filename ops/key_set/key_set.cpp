#include "ops/key_set/key_set.h"

#include <algorithm>
#include <span>
#include <utility>

#include "engine/dispatch.h"
#include "ops/key_set/key_set_kernels.h"

namespace hax {
namespace {

constexpr std::int32_t kForever = KeySet::kForever;

void require_positions(const Sequences& sequences, const Tensor& position) {
  check(position.dtype() == DType::int64 && position.shape() == Shape{sequences.tokens()},
        "key_set: positions are {} {}, expected int64 [{}]", name_of(position.dtype()),
        position.shape(), sequences.tokens());
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t* p = position.data<std::int64_t>();
    for (std::int64_t r = sequences.begin(s); r < sequences.end(s); ++r) {
      const std::int64_t before = r == sequences.begin(s) ? -1 : p[r - 1];
      check(p[r] > before, "key_set: position {} of sequence {} follows {}, expected a larger one",
            p[r], s, before);
    }
  }
}

std::int32_t saturated(std::int64_t row) {
  return static_cast<std::int32_t>(std::min<std::int64_t>(row, kForever));
}

// Where rows were dropped, `position` tells which are left; deaths are counted in rows, past the
// last one as if none were dropped.
void deaths_among(const Sequences& sequences, const Tensor& position, const IntervalRule& rule,
                  std::int32_t* death) {
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::span p =
        position.values<std::int64_t>().subspan(static_cast<std::size_t>(sequences.begin(s)),
                                                static_cast<std::size_t>(sequences.length(s)));
    for (const std::int64_t own : p) {
      const std::int64_t dies = rule.death_of(own);
      const std::int64_t row = std::ranges::lower_bound(p, dies) - p.begin();
      const std::int64_t beyond = dies > p.back() ? dies - p.back() - 1 : 0;
      *death++ = saturated(IntervalRule::later(row, beyond));
    }
  }
}

KeySet interval_keys(const Sequences& sequences, const IntervalRule& rule, const Tensor& position,
                     Device device) {
  KeySet keys;
  keys.sequences = sequences;
  if (position.defined()) {
    require_positions(sequences, position);
    keys.death = Tensor::empty({sequences.tokens()}, DType::int32);
    deaths_among(sequences, position, rule, keys.death.data<std::int32_t>());
    keys.death = keys.death.to(device);
    return keys;
  }
  keys.death = Tensor::empty({sequences.tokens()}, DType::int32, device);
  on_device(device, [&](auto tag) { interval_deaths(tag, sequences, rule, keys.death); });
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

KeySet full_keys(const Sequences& sequences, Device device) {
  return interval_keys(sequences, {}, {}, device);
}

KeySet window_keys(const Sequences& sequences, std::int64_t keys, const Tensor& position,
                   Device device) {
  require_keys("window_keys", keys);
  return interval_keys(sequences, {.reach = keys}, position, device);
}

KeySet sink_keys(const Sequences& sequences, std::int64_t keys, const Tensor& position,
                 Device device) {
  require_keys("sink_keys", keys);
  return interval_keys(sequences, {.limit = keys}, position, device);
}

KeySet dilated_keys(const Sequences& sequences, std::int64_t dilation, std::int64_t keys,
                    const Tensor& position, Device device) {
  require_keys("dilated_keys", keys);
  check(dilation >= 1, "dilated_keys: the dilation is {}, expected at least 1", dilation);
  // A key on the grid dies where the keys-th later one appears, `keys` steps on.
  constexpr std::int64_t kNever = IntervalRule::kNever;
  const std::int64_t reach = keys > kNever / dilation ? kNever : keys * dilation;
  return interval_keys(sequences, {.reach = reach, .dilation = dilation}, position, device);
}

KeySet unite(const KeySet& a, const KeySet& b) {
  check(!a.banded() || !b.banded(), "unite: both sets have a band, expected at most one");
  check(same_sequences(a.sequences, b.sequences), "unite: the two sets are of different packs");
  // One made on the CPU, by default or by true positions, goes where the other is.
  const Device device = a.death.device().is_cpu() ? b.death.device() : a.death.device();
  KeySet both = to_device(a.banded() ? a : b, device);
  const Tensor first = a.death.to(device), second = b.death.to(device);
  both.death = Tensor::empty(first.shape(), DType::int32, device);
  on_device(device, [&](auto tag) { unite_deaths(tag, first, second, both.death); });
  return both;
}

KeySet to_device(const KeySet& keys, Device device) {
  return {keys.sequences,
          to_device(keys.death, device),
          to_device(keys.query_bin, device),
          to_device(keys.key_bin, device),
          to_device(keys.expire, device),
          to_device(keys.order, device)};
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

Tensor surviving_rows(const KeySet& keys) {
  std::vector<std::int32_t> rows;
  for (std::int64_t s = 0; s < keys.sequences.count(); ++s) {
    const std::int64_t length = keys.sequences.length(s);
    for (std::int64_t t = keys.sequences.begin(s); t < keys.sequences.end(s); ++t) {
      const bool survives = keys.death.data<std::int32_t>()[t] > length ||
                            (keys.banded() && keys.expire.data<std::int32_t>()[t] > length);
      if (survives) rows.push_back(static_cast<std::int32_t>(t));
    }
  }
  return Tensor::from(rows);
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
