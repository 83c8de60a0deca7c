#include "ops/slice_rows/slice_rows.h"

#include "engine/dispatch.h"
#include "ops/slice_rows/slice_rows_kernels.h"

namespace hax {

Var slice_rows(const Var& x, std::int64_t begin, std::int64_t end) {
  check(x.shape().rank() >= 1 && 0 <= begin && begin <= end && end <= x.size(0),
        "slice_rows: rows {}..{} of a tensor of shape {} do not exist", begin, end, x.shape());

  const auto gradient = [begin, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    on_device(dy.device(), [&](auto device) { slice_rows_backward(device, dy, begin, dx); });
    return Grads{dx};
  };
  return record("slice_rows", x.value().rows(begin, end), {x}, gradient);
}

}  // namespace hax
