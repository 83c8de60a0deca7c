#include "ops/reshape/reshape.h"

namespace hax {

Var reshape(const Var& x, const Shape& shape) {
  return record("reshape", x.value().reshape(shape), {x},
                [shape = x.shape()](const Tensor& dy) { return Grads{dy.reshape(shape)}; });
}

}  // namespace hax
