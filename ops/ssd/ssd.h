// State space duality, the sequence mixer of Mamba2 (Dao and Gu, "Transformers are SSMs", 2024).
// Page: ssd.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

struct SsdOptions {
  std::int64_t heads = 1;
  std::int64_t groups = 1;   ///< divides heads; head h uses B and C of group h / (heads / groups)
  std::int64_t chunk = 256;  ///< tokens multiplied as one matrix; changes results by rounding alone
};

struct SsdResult {
  Var y;            ///< [R, heads P]
  Var final_state;  ///< [S, heads, P, N], after the last token of each sequence
};

/// For every head h, within each sequence, from S = initial_state or zero:
///     S_t = exp(dt_t,h A_h) S_{t-1} + dt_t,h x_t,h (outer) B_t,g ;   y_t,h = S_t C_t,g + D_h x_t,h
/// x [T, heads P], dt [T, heads] (positive), A [heads] (negative), B [T, groups N], C [R, groups
/// N], D [heads], initial_state [S, heads, P, N] or undefined -> y and final_state. A sequence of
/// length 0 passes its initial state through. `rows` int32 [R], strictly increasing positions in
/// the pack, are the rows somebody will read; undefined means all (R = T). C has one row for each
/// row wanted. Throws Error when shapes, types, options or rows do not fit.
SsdResult ssd(const Var& x, const Var& dt, const Var& A, const Var& B, const Var& C, const Var& D,
              const Sequences& sequences, const SsdOptions& options, const Tensor& rows = {},
              const Var& initial_state = {});

}  // namespace hax
