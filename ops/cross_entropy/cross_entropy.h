// Masked cross-entropy and per-sample accuracy. Page: cross_entropy.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

/// sum over rows with label >= 0 of ( logsumexp(logits_r) - logits_r,label ) / divisor, a scalar of
/// shape []. logits [R, V], labels int32 [R]; a negative label masks its row. divisor > 0: the
/// number of masked tokens of the whole (accumulated) batch, so that shards add up to the batch's
/// mean. bfloat16 logits give a float32 loss. Throws Error when shapes do not fit or a label is
/// >= V; on CUDA such a label makes the loss NaN.
Var cross_entropy(const Var& logits, const Tensor& labels, double divisor);

/// For each sample, the share of its rows with label >= 0 whose largest logit (the first of equals)
/// is the label. logits [R, V], labels int32 [R], `samples` says which rows belong to which sample
/// -> float64 [S]. A sample without such rows gets NaN.
Tensor sample_accuracy(const Tensor& logits, const Tensor& labels, const Sequences& samples);

}  // namespace hax
