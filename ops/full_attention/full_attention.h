// Causal softmax attention over all earlier keys or a window of them, tiled. Page:
// full_attention.md
#pragma once

#include <optional>

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

struct FullAttentionOptions {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;  ///< divides heads; head h uses key/value head h / (heads / kv_heads)
  double scale = 1.0;         ///< multiplies Q . K
  std::optional<std::int64_t> window = {};  ///< at most this many keys, the query's own included
};

/// y_r,h = sum_{j <= i} softmax_j(scale Q_r,h . K_j,g) V_j,g, within each sequence, i the position
/// of row rows_r. Q [R, heads N], K [T, kv_heads N], V [T, kv_heads P] -> y [R, heads P]. `rows`
/// int32 [R], strictly increasing pack rows; undefined means all (R = T). Works in tiles with a
/// running maximum and sum (Milakov and Gimelshein 2018; Dao et al. 2022): memory O(T), the scores
/// are recomputed in the backward. Throws Error when shapes, types or rows do not fit.
Var full_attention(const Var& Q, const Var& K, const Var& V, const Sequences& sequences,
                   const FullAttentionOptions& options = {}, const Tensor& rows = {});

}  // namespace hax
