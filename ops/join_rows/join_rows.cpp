#include "ops/join_rows/join_rows.h"

#include <vector>

#include "engine/dispatch.h"
#include "ops/join_rows/join_rows_kernels.h"

namespace hax {
namespace {

void require_fit(const Tensor& a, const Sequences& past, const Tensor& b,
                 const Sequences& present) {
  bool fits = a.rank() >= 1 && a.rank() == b.rank() && a.dtype() == b.dtype();
  for (int axis = 1; fits && axis < a.rank(); ++axis) fits = a.size(axis) == b.size(axis);
  check(fits, "join_rows: {} {} and {} {}, expected one type and rows of one shape",
        name_of(a.dtype()), a.shape(), name_of(b.dtype()), b.shape());
  check(a.device() == b.device(), "join_rows: {} and {} rows, expected one device",
        name_of(a.device()), name_of(b.device()));
  check(past.count() == present.count(), "join_rows: {} sequences cannot be followed by {}",
        past.count(), present.count());
  past.require_tokens("join_rows", a.size(0));
  present.require_tokens("join_rows", b.size(0));
}

}  // namespace

Tensor join_tensors(const Tensor& a, const Sequences& past, const Tensor& b,
                    const Sequences& present) {
  require_fit(a, past, b, present);
  std::vector<std::int64_t> sizes;
  for (int axis = 0; axis < a.rank(); ++axis) sizes.push_back(a.size(axis));
  sizes[0] += b.size(0);
  Tensor joined = Tensor::empty(Shape(std::span<const std::int64_t>(sizes)), a.dtype(), a.device());
  on_device(a.device(), [&](auto device) { join_row_tables(device, a, past, b, present, joined); });
  return joined;
}

Var join_rows(const Var& a, const Sequences& past, const Var& b, const Sequences& present) {
  const auto gradient = [past, present, a_shape = a.shape(),
                         b_shape = b.shape()](const Tensor& dy) {
    Tensor da = Tensor::empty(a_shape, dy.dtype(), dy.device());
    Tensor db = Tensor::empty(b_shape, dy.dtype(), dy.device());
    on_device(dy.device(),
              [&](auto device) { split_row_tables(device, dy, past, present, da, db); });
    return Grads{da, db};
  };
  return record("join_rows", join_tensors(a.value(), past, b.value(), present), {a, b}, gradient);
}

}  // namespace hax
