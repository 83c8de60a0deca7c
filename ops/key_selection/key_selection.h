// Key selection: every query sees the keys with the highest scores so far (paper, section 4.2).
// Page: key_selection.md
#pragma once

#include "ops/key_set/key_set.h"

namespace hax {

/// Query i sees the `keys` best-scored of the keys 0..i of its sequence (all of them while i <
/// keys). Of equal scores the older key wins: a new key replaces only a strictly smaller score, and
/// of several smallest the newest goes. score [T], float32 or float64; keys >= 1. A running top-k:
/// O(T log keys) at worst. Throws Error on NaN scores.
KeySet key_selection_keys(const Tensor& score, const Sequences& sequences, std::int64_t keys);

}  // namespace hax
