// Running sum along time, L2-normalised: what key selection scores keys against (paper, equation
// 16). Page: running_sum.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"
#include "ops/norm_mode.h"

namespace hax {

/// s_t = sum_{p <= t} x_p within each sequence, then normalised. x [T, N] -> [T, N].
/// causal:   s_t / max(|s_t|_2, 1e-12), each vector over its features.
/// released: s_t,f / max(n_f, 1e-12) with n_f = sqrt( sum over the padded positions of s_.,f^2 );
/// after the end of a
///           sequence its sum stays constant, so padding adds (padded - length) s_end,f^2.
/// Sums run left to right in double. Throws Error when x does not fit the pack.
Var normalized_running_sum(const Var& x, const Sequences& sequences, NormMode mode);

}  // namespace hax
