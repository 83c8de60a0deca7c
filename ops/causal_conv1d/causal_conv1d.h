// Causal depthwise convolution along time. Page: causal_conv1d.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

enum class Activation : std::uint8_t { none, silu };

/// y_t,c = act( bias_c + sum_w weight_c,0,w x_{t-(W-1)+w},c ), positions before the sequence's
/// start are zero. x [T, C], weight [C, 1, W], bias [C] or undefined -> y [T, C]. Any W >= 1,
/// sequences of any length including 0. The pre-activation is recomputed in the backward. Throws
/// Error when shapes or types do not fit.
Var causal_conv1d(const Var& x, const Var& weight, const Var& bias, const Sequences& sequences,
                  Activation activation = Activation::silu);

}  // namespace hax
