// Where the two branches of a layer meet: (scan + E attention) silu(z). Page: gate.md
#pragma once

#include "engine/autograd.h"

namespace hax {

/// y = (s + E a) silu(z), entry by entry: s [R, D] is what the scan gives, a [R, D] what the sparse
/// attention gives, E [D] its weight for each channel, z [R, D] the gate (paper, appendix B; the
/// released code's E). Throws Error unless shapes and types fit.
Var gate(const Var& s, const Var& a, const Var& E, const Var& z);

}  // namespace hax
