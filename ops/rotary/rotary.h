// Rotary position embedding (Su et al., "RoFormer", 2021). Page: rotary.md
#pragma once

#include <vector>

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

/// Turns the first half of every head against its second half by angles that grow with the
/// position: with angle_k = position theta^(-2k / P), for k < P / 2,
///     y_k = x_k cos(angle_k) - x_{k+P/2} sin(angle_k)
///     y_{k+P/2} = x_{k+P/2} cos(angle_k) + x_k sin(angle_k)
/// x [R, heads P] -> y [R, heads P]. A token's position counts from the start of its sequence s,
/// plus first[s] where `first` is given (one entry a sequence: tokens already seen). `rows` int32
/// [R], strictly increasing positions in the pack, says which tokens x holds; undefined means all
/// (R = T). Angles are float64 whatever the type of x. Throws Error when P is odd or shapes, types,
/// options or rows do not fit.
Var rotary(const Var& x, const Sequences& sequences, std::int64_t heads, double theta = 10000.0,
           const std::vector<std::int64_t>& first = {}, const Tensor& rows = {});

}  // namespace hax
