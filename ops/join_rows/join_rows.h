// Rows of the past before rows of the present, sequence by sequence. Page: join_rows.md
#pragma once

#include "engine/autograd.h"
#include "engine/sequences.h"

namespace hax {

/// The rows of past.joined(present): of every sequence first its rows in a, then those in b.
/// a [Ta, ...] of the pack `past`, b [Tb, ...] of the pack `present`, of one type -> [Ta + Tb,
/// ...]. Throws Error when shapes, types or packs do not fit.
Var join_rows(const Var& a, const Sequences& past, const Var& b, const Sequences& present);
/// The same for numbers without a gradient, of any type.
Tensor join_tensors(const Tensor& a, const Sequences& past, const Tensor& b,
                    const Sequences& present);

}  // namespace hax
