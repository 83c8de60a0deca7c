// Locality-sensitive hashing: queries see the most recent keys of their bin (paper, equations 4 to
// 8). Page: lsh.md
#pragma once

#include <vector>

#include "ops/key_set/key_set.h"
#include "ops/norm_mode.h"

namespace hax {

/// argmax: the bin is the column of the largest projection (the first of equals).
/// sign_bits: bit c of the bin is (projection c > 0); at most 62 columns.
enum class LshRule : std::uint8_t { argmax, sign_bits };
/// What is subtracted before hashing: the mean of positions 0..i (position 0 becomes exactly zero),
/// the mean over the padded sequence, or nothing.
enum class LshCenter : std::uint8_t { causal, sequence, none };

/// What the causal mean of a sequence goes on from when the sequence comes in pieces.
struct CarriedMean {
  Tensor sum;  ///< float64 [S, N], of the rows before this piece; undefined: none yet
  std::vector<std::int64_t> rows;  ///< [S], how many those are; empty: none yet
};

/// The bin of every row. x [T, N] (float32 or float64), hash [N, h] of the same type -> int64 [T].
/// norm causal: each centred vector is divided by its length, which changes no bin and is therefore
/// skipped. norm released: each feature is divided by its L2 norm over the padded sequence (zero
/// vectors at the pads, which after centring are -centre). Means run left to right in double.
/// `carried`: x is the next piece of every sequence. The causal mean goes on from what it holds,
/// which is then replaced by a new sum and the new counts; bins are those of one piece, to the bit.
/// Without a centre it is left alone. Throws Error when shapes or types do not fit, h > 62 with
/// sign_bits, or a mean is carried with the sequence centre or the released norm, which need the
/// whole sequence; `carried` is then as before.
Tensor lsh_bins(const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
                LshCenter center, NormMode norm, CarriedMean* carried = nullptr);

/// Query i sees the `keys` most recent keys j <= i with key_bin_j = query_bin_i. Bins int64 [T];
/// keys >= 1. O(T log T): bins are sorted, never a table of 2^h.
KeySet lsh_keys(const Tensor& query_bin, const Tensor& key_bin, const Sequences& sequences,
                std::int64_t keys);

}  // namespace hax
