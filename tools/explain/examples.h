// Worked examples of `hax explain`.
#pragma once

#include <string>
#include <vector>

#include "ops/gradcheck.h"

namespace hax::explain {

/// The numbers of a tensor as text, one line a row, with its name and shape above. Long rows and
/// tensors are cut, which the text then says.
std::string matrix_text(const std::string& name, const Tensor& x);

/// Inputs, output and every gradient beside finite differences. At most 100 columns wide where the
/// names of the inputs are short.
std::string gradient_text(const GradCase& c);

/// Of ops that choose keys or rows and have no gradient: who sees whom in a sequence of ten tokens,
/// which rows come out. Empty for other ops.
std::string keys_text(const std::string& op);

}  // namespace hax::explain
