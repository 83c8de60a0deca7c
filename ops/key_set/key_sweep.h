// Walks the queries of a sequence in order and hands out the keys of each: how a KeySet is read in
// time proportional to the tokens and the keys seen, without a list per query.
#pragma once

#include <span>
#include <vector>

#include "ops/key_set/key_set.h"

namespace hax {

/// Reads a KeySet in CPU memory. What a query gets, order included, depends on no key after it and
/// not on which other queries were asked for.
class KeySweep {
 public:
  /// `keys` must outlive the sweep.
  explicit KeySweep(const KeySet& keys) : keys_(keys) {}

  /// Starts with sequence s of the pack, at query `from`: earlier ones cannot be asked for. What
  /// the later ones get is the same. Besides a glance at the keys before `from`, O(bins log
  /// length).
  void enter(std::int64_t s, std::int32_t from = 0);
  /// Positions of the keys that query i of the entered sequence sees, each once: those seen by
  /// position in increasing order, then those of its bin. i must increase from call to call. Valid
  /// until the next call. Over a sequence: O(length + keys handed out + queries log bins).
  std::span<const std::int32_t> keys_of(std::int32_t i);
  /// From now on, lists of queries up to `last` begin with the n keys that all queries from
  /// `first`, the next one asked for, to `last` see by position. Returns n. The order of the lists
  /// then depends on both.
  std::size_t share(std::int32_t first, std::int32_t last);

  /// Bin of query i of the entered sequence; 0 in sets without a band.
  std::int64_t bin_of(std::int32_t i) const { return segments_.empty() ? 0 : query_bin_[i]; }

 private:
  // Keys of one bin in `order`: [head, tail) are neither expired nor after the query.
  struct Segment {
    std::int32_t head, tail, end;
  };
  void find_segments(const std::int64_t* key_bin, std::int32_t length, std::int32_t from);
  void take_up(std::int32_t i);
  void drop_dead(std::int32_t i);
  void add_band(std::int32_t i, std::size_t& count);

  const KeySet& keys_;
  const std::int32_t* death_ = nullptr;
  const std::int64_t* query_bin_ = nullptr;
  const std::int32_t* expire_ = nullptr;
  const std::int32_t* order_ = nullptr;
  std::vector<std::int64_t> bins_;  // increasing
  std::vector<Segment> segments_;   // one a bin
  std::vector<std::int32_t> list_;  // the shared, the other alive, then the last query's band
  std::vector<std::int32_t> rest_;
  std::size_t shared_ = 0, alive_ = 0;
  std::int32_t shared_until_ = 0;  // last query of share()
  std::int32_t next_ = 0;          // first position not yet taken up
  std::int32_t next_death_ = 0;    // when the first of the alive that are not shared dies
};

}  // namespace hax
