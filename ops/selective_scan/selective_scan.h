// The selective scan of Mamba (Gu and Dao, 2023). Page: selective_scan.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

/// For every channel e and state n, within each sequence, from h = 0:
///     h_t = exp(dt_t,e A_e,n) h_{t-1} + dt_t,e B_t,n u_t,e ;   y_t,e = sum_n C_t,n h_t,e,n + D_e
///     u_t,e
/// u, dt [T, E] (dt > 0, after softplus), A [E, N] (negative), B [T, N], C [R, N], D [E] -> y [R,
/// E]. `rows` int32 [R], strictly increasing positions in the pack, are the rows somebody will
/// read; undefined means all (R = T). C has one row for each row wanted. States are saved every few
/// tokens and recomputed in the backward. Throws Error when shapes, types or rows do not fit.
Var selective_scan(const Var& u, const Var& dt, const Var& A, const Var& B, const Var& C,
                   const Var& D, const Sequences& sequences, const Tensor& rows = {});

}  // namespace hax
