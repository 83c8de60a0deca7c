// Every op's gradient cases (ops/gradcheck.h) once more in float32, on the CPU and on another
// device: the same results and gradients from the same numbers. `hax gradcheck --device cuda`
// prints them and the tests demand them.
#pragma once

#include <optional>

#include "ops/gradcheck.h"

namespace hax {

struct ParityError {
  double result = 0;    ///< max|a-b| / max|b|; where the CPU's numbers stay below 1e-3, max|a-b|
  double gradient = 0;  ///< the same, the worst of the inputs'
  int input = 0;        ///< the input where that occurs
};

/// How far `device` is from the CPU; nothing for a case that cannot run in float32. Infinite where
/// one of both is NaN, or a gradient arrives on one of them alone.
std::optional<ParityError> check_parity(const GradCase& gradient_case, Device device);

}  // namespace hax
