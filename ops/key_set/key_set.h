// Which keys each query sees, in O(T) memory: the only form that selectors return and
// sparse_attention consumes. Page: key_set.md
#pragma once

#include <vector>

#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Positions count from the start of their sequence. Query i sees key j of its own sequence iff
///     j <= i  and  ( i < death_j  or  ( banded and query_bin_i = key_bin_j and i < expire_j ) ).
/// So a key's queries are two ranges: [j, death_j) by position, and [max(j, death_j), expire_j)
/// inside its bin.
struct KeySet {
  Sequences sequences;
  Tensor death;  ///< int32 [T], death_j >= j; j itself: not seen by position; kForever: never dies
  // The band; undefined in sets that are pure intervals.
  Tensor query_bin;  ///< int64 [T]
  Tensor key_bin;    ///< int64 [T]
  Tensor expire;     ///< int32 [T], expire_j >= j, not decreasing along the keys of one bin
  Tensor
      order;  ///< int32 [T], within each sequence its key positions sorted by (key_bin, position)

  static constexpr std::int32_t kForever = 0x7fffffff;
  bool banded() const { return key_bin.defined(); }
};

/// All keys up to the query (the paper's full attention).
KeySet full_keys(const Sequences& sequences, Device device = kCpu);

// Where rows of the past that nobody sees any more were dropped, `position` int64 [T] tells the
// true position of each row that is left, increasing in every sequence; the rules below then go by
// it. Undefined: all rows are there. The set is made on `device`; positions are read by the host.

/// i - j < keys. keys >= 1.
KeySet window_keys(const Sequences& sequences, std::int64_t keys, const Tensor& position = {},
                   Device device = kCpu);
/// j < keys: the A-shape's sink.
KeySet sink_keys(const Sequences& sequences, std::int64_t keys, const Tensor& position = {},
                 Device device = kCpu);
/// j mod dilation == dilation - 1; of these the `keys` most recent. dilation >= 1, keys >= 1.
KeySet dilated_keys(const Sequences& sequences, std::int64_t dilation, std::int64_t keys,
                    const Tensor& position = {}, Device device = kCpu);

/// Every pair that a or b admits, without duplicates. At most one of them may be banded (Error
/// otherwise).
KeySet unite(const KeySet& a, const KeySet& b);

/// The same set with its tensors on another device (shared where they are there already).
KeySet to_device(const KeySet& keys, Device device);

/// int32: pack rows, in order, of the keys that a query after the last row of their sequence may
/// still see. What else there is can be dropped before the sequence goes on.
Tensor surviving_rows(const KeySet& keys);

/// For tests, `hax verify` and the inspector: result[t] are the sorted key positions of the query
/// in pack row t.
std::vector<std::vector<std::int32_t>> to_lists(const KeySet& keys);

/// Throws Error naming what is wrong unless the invariants above hold. For tests; costs O(T log T).
void validate(const KeySet& keys);

}  // namespace hax
