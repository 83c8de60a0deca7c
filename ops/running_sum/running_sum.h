// Running sum along time, L2-normalised: what key selection scores keys against (paper, equation
// 16). Page: running_sum.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"
#include "ops/norm_mode.h"

namespace hax {

struct RunningSumResult {
  Var y;          ///< [T, N]
  Var final_sum;  ///< float64 [S, N], s after the last token of each sequence, not normalised
};

/// s_t = initial + sum_{p <= t} x_p within each sequence, then normalised. x [T, N] -> y [T, N].
/// causal:   s_t / max(|s_t|_2, 1e-12), each vector over its features.
/// released: s_t,f / max(n_f, 1e-12) with n_f = sqrt( sum over the padded positions of s_.,f^2 );
/// after the end of a
///           sequence its sum stays constant, so padding adds (padded - length) s_end,f^2.
/// initial_sum is float64 [S, N] whatever the type of x, or undefined: zero. A sequence of length 0
/// passes it through; one that continues from the final sum of its first part gives the same
/// numbers as in one piece, to the bit. The released mode takes none: its norms need the whole
/// sequence. Sums run left to right in double. Throws Error when x or initial_sum does not fit the
/// pack, or an initial_sum meets the released mode.
RunningSumResult normalized_running_sum(const Var& x, const Sequences& sequences, NormMode mode,
                                        const Var& initial_sum = {});

}  // namespace hax
