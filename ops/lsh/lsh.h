// Locality-sensitive hashing: queries see the most recent keys of their bin (paper, equations 4 to
// 8). Page: lsh.md
#pragma once

#include "ops/key_set/key_set.h"
#include "ops/norm_mode.h"

namespace hax {

/// argmax: the bin is the column of the largest projection (the first of equals).
/// sign_bits: bit c of the bin is (projection c > 0); at most 62 columns.
enum class LshRule : std::uint8_t { argmax, sign_bits };
/// What is subtracted before hashing: the mean of positions 0..i (position 0 becomes exactly zero),
/// the mean over the padded sequence, or nothing.
enum class LshCenter : std::uint8_t { causal, sequence, none };

/// The bin of every row. x [T, N] (float32 or float64), hash [N, h] of the same type -> int64 [T].
/// norm causal: each centred vector is divided by its length, which changes no bin and is therefore
/// skipped. norm released: each feature is divided by its L2 norm over the padded sequence (zero
/// vectors at the pads, which after centring are -centre). Means run left to right in double.
/// Throws Error when shapes or types do not fit, or h > 62 with sign_bits.
Tensor lsh_bins(const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
                LshCenter center, NormMode norm);

/// Query i sees the `keys` most recent keys j <= i with key_bin_j = query_bin_i. Bins int64 [T];
/// keys >= 1. O(T log T): bins are sorted, never a table of 2^h.
KeySet lsh_keys(const Tensor& query_bin, const Tensor& key_bin, const Sequences& sequences,
                std::int64_t keys);

}  // namespace hax
