#include "ops/select_rows/select_rows.h"

#include <vector>

#include "engine/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/select_rows/select_rows_kernels.h"

namespace hax {

Tensor select_rows(const Tensor& x, const Tensor& rows) {
  check(x.rank() >= 1 && rows.rank() == 1 && rows.dtype() == DType::int32,
        "select_rows: x is {} and rows are {} {}, expected [M, ...] and int32 [R]", x.shape(),
        name_of(rows.dtype()), rows.shape());
  if (rows.device().is_cpu()) {
    for (const std::int32_t row : rows.values<std::int32_t>()) {
      check(0 <= row && row < x.size(0), "select_rows: row {}, expected one below {}", row,
            x.size(0));
    }
  }
  std::vector<std::int64_t> sizes{rows.numel()};
  for (int axis = 1; axis < x.rank(); ++axis) sizes.push_back(x.size(axis));
  Tensor y = Tensor::empty(Shape(std::span<const std::int64_t>(sizes)), x.dtype(), x.device());
  const Tensor index = rows.to(x.device());
  on_device(x.device(), [&](auto device) { select_rows(device, x, index, y); });
  return y;
}

Tensor beside(const Tensor& left, const Tensor& right) {
  check(left.rank() == 2 && right.rank() == 2 && left.size(0) == right.size(0) &&
            left.dtype() == right.dtype(),
        "beside: {} {} and {} {}, expected [T, N] and [T, M] of one type", name_of(left.dtype()),
        left.shape(), name_of(right.dtype()), right.shape());
  const std::vector<std::int64_t> widths{left.size(1), right.size(1)};
  Tensor both = Tensor::empty({left.size(0), widths[0] + widths[1]}, left.dtype(), left.device());
  const std::vector<Tensor> parts{left, right};
  on_device(left.device(), [&](auto device) { join_columns(device, parts, widths, both); });
  return both;
}

Tensor candidate_features(const Tensor& features, const Tensor& positions, const Sequences& groups,
                          const Sequences& sequences) {
  check(features.rank() == 2 && features.size(1) % 2 == 0 && positions.rank() == 1 &&
            positions.dtype() == DType::int32,
        "candidate_features: features are {} and positions {} {}, expected [T, 2N] and int32 [C]",
        features.shape(), name_of(positions.dtype()), positions.shape());
  sequences.require_tokens("candidate_features", features.size(0));
  groups.require_tokens("candidate_features: candidates", positions.numel());
  check(groups.count() == sequences.count(),
        "candidate_features: {} groups of candidates for {} sequences, expected one each",
        groups.count(), sequences.count());
  Tensor y =
      Tensor::empty({positions.numel(), features.size(1)}, features.dtype(), features.device());
  const Tensor at = positions.to(features.device());
  on_device(features.device(),
            [&](auto device) { candidate_features(device, features, at, groups, sequences, y); });
  return y;
}

}  // namespace hax
