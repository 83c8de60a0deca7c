// Softmax attention over a KeySet (paper, equation 4). Page: sparse_attention.md
#pragma once

#include "engine/autograd.h"
#include "ops/key_set/key_set.h"

namespace hax {

/// What a query without any key gets. zero: nothing, and no gradient. uniform: the mean of V over
/// the padded sequence, later positions included, with the gradient of an ordinary softmax over
/// equal weights (the released code's defect, kept for exact comparison).
enum class EmptyRows : std::uint8_t { zero, uniform };

/// y_r = sum_j softmax_j(Q_r . K_j) V_j over the keys j that `keys` admits for the query at pack
/// row rows_r. Q [R, N] (one row for each row wanted), K [T, N] already scaled, V [T, E] -> y [R,
/// E]. `rows` int32 [R], strictly increasing; undefined means all (R = T). Nothing L x L is
/// allocated; O(R k (N + E)). Throws Error when shapes, types or rows do not fit.
Var sparse_attention(const Var& Q, const Var& K, const Var& V, const KeySet& keys,
                     const Tensor& rows = {}, EmptyRows empty = EmptyRows::zero);

}  // namespace hax
