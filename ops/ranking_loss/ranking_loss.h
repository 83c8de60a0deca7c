// The pairwise ranking loss that trains key selection's scores (paper, section 4.2; RankNet, Burges
// et al. 2005). Page: ranking_loss.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

/// How much attention each candidate key would attract: target_c = sum over queries i >= j_c of
/// sigma(Q_i . K_{j_c}). Q, K [T, N] (K already scaled). candidates int32 [C]: positions within
/// their sequence; `groups` says which candidates belong to which sequence. Queries at padded
/// positions (length <= i < padded) count sigma(0) = 1/2 each, and a candidate may itself be such a
/// position: its key is the zero vector. -> [C], no gradient. Throws Error when shapes do not fit
/// or a position is outside 0..padded-1.
Tensor ranking_target(const Tensor& Q, const Tensor& K, const Tensor& candidates,
                      const Sequences& groups, const Sequences& sequences);

/// sum over sequences of mean over its c^2 ordered pairs (a, b), a = b included, of
///     BCEWithLogits(score_a - score_b, [target_a > target_b] + [target_a = target_b] / 2), divided
///     by `divisor`.
/// score [C], target [C] (no gradient), groups as above -> a scalar of shape []. divisor: sequences
/// in the whole batch. Uses log1p(e^-|x|) and half of the pairs. An empty group contributes 0.
Var ranking_loss(const Var& score, const Tensor& target, const Sequences& groups, double divisor);

}  // namespace hax
