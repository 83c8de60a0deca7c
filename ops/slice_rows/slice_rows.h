// A block of rows. Page: slice_rows.md
#pragma once

#include "engine/autograd.h"

namespace hax {

/// Rows begin..end of x [R, ...]; shares storage with x. Used on weights, so that a projection is
/// split by running two products instead of copying columns. Throws Error when the rows do not
/// exist.
Var slice_rows(const Var& x, std::int64_t begin, std::int64_t end);

}  // namespace hax
