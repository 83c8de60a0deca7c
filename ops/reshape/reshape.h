// Another shape for the same numbers. Page: reshape.md
#pragma once

#include "engine/autograd.h"

namespace hax {

/// x under another shape of equally many elements; shares storage. Throws Error when the counts
/// differ.
Var reshape(const Var& x, const Shape& shape);

}  // namespace hax
