// Comparing tensors the way DESIGN.md states tolerances.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/random.h"
#include "engine/tensor.h"

namespace hax::test {

/// max|a-b| / max|b| over the tensor; when max|b| < 1e-3, max|a-b|. NaN in one place only counts as
/// infinite. Shapes must be equal. Compared in double.
double relative_error(const Tensor& a, const Tensor& b);

/// Equal shape, type and bytes.
bool same_bits(const Tensor& a, const Tensor& b);

/// N(0, deviation^2) numbers; the same for equal seeds, whatever the type.
Tensor random_tensor(Shape shape, std::uint64_t seed, DType dtype = DType::float64,
                     double deviation = 1.0);

/// What `body` throws as hax::Error, or "" when it throws nothing.
std::string error_of(const std::function<void()>& body);

}  // namespace hax::test
