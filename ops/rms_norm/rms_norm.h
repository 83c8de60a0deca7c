// Root-mean-square normalisation (Zhang and Sennrich, 2019). Page: rms_norm.md
#pragma once

#include "engine/autograd.h"

namespace hax {

/// y = x / sqrt(mean(x^2) + eps) * weight, over the last axis.
/// x [..., D], weight [D] -> y [..., D]. float32 or float64. eps > 0.
/// Throws Error when weight is not [D] or the types differ.
Var rms_norm(const Var& x, const Var& weight, double eps = 1e-5);

}  // namespace hax
