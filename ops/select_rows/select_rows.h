// Rows of a table, for numbers that carry no gradient. Page: select_rows.md
#pragma once

#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Row rows_r of x. x [M, ...] of any type, rows int32 [R] on any device -> [R, ...] on x's device.
/// Rows on the CPU are checked: throws Error naming the first one outside 0..M-1. Rows on another
/// device were checked by whoever computed them.
Tensor select_rows(const Tensor& x, const Tensor& rows);

/// [T, N] and [T, M] -> [T, N + M], side by side. float32, float64 or bfloat16.
Tensor beside(const Tensor& left, const Tensor& right);

/// The features [T, 2N] (a key, then the running sum it is scored against) of candidates, by their
/// positions int32 [C] within the sequences that `groups` assigns them to -> [C, 2N]. A position at
/// or past the end of its sequence is padding (fixtures of the released code): its key is the zero
/// vector, its running sum the last of the sequence.
Tensor candidate_features(const Tensor& features, const Tensor& positions, const Sequences& groups,
                          const Sequences& sequences);

}  // namespace hax
