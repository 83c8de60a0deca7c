// The selective scan of Mamba (Gu and Dao, 2023). Page: selective_scan.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

struct ScanResult {
  Var y;            ///< [R, E]
  Var final_state;  ///< [S, E, N], h after the last token of each sequence
};

/// For every channel e and state n, within each sequence, from h = initial_state or zero:
///     h_t = exp(dt_t,e A_e,n) h_{t-1} + dt_t,e B_t,n u_t,e ;   y_t,e = sum_n C_t,n h_t,e,n + D_e
///     u_t,e
/// u, dt [T, E] (dt > 0, after softplus), A [E, N] (negative), B [T, N], C [R, N], D [E],
/// initial_state [S, E, N] or undefined -> y and final_state. A sequence of length 0 passes its
/// initial state through; one that continues from the final state of its first part gives the same
/// numbers as in one piece, to the bit. `rows` int32 [R], strictly increasing positions in the
/// pack, are the rows somebody will read; undefined means all (R = T). C has one row for each row
/// wanted. States are saved every few tokens and recomputed in the backward. Throws Error when
/// shapes, types or rows do not fit.
ScanResult selective_scan(const Var& u, const Var& dt, const Var& A, const Var& B, const Var& C,
                          const Var& D, const Sequences& sequences, const Tensor& rows = {},
                          const Var& initial_state = {});

}  // namespace hax
