#include "ops/embedding/embedding.h"

#include "engine/dispatch.h"
#include "ops/embedding/embedding_kernels.h"

namespace hax {

Var embedding(const Var& table, const Tensor& rows) {
  const Tensor index = rows.to(table.device());
  check(table.shape().rank() == 2 && index.rank() == 1,
        "embedding: table is {} and index is {}, expected [R, D] and [T]", table.shape(),
        index.shape());
  check(index.dtype() == DType::int32, "embedding: index is {}, expected int32",
        name_of(index.dtype()));

  Tensor y = Tensor::empty({index.size(0), table.size(1)}, table.dtype(), table.device());
  on_device(table.device(),
            [&](auto device) { embedding_forward(device, table.value(), index, y); });

  const auto gradient = [index, shape = table.shape()](const Tensor& dy) {
    Tensor dtable = Tensor::empty(shape, dy.dtype(), dy.device());
    on_device(dy.device(), [&](auto device) { embedding_backward(device, dy, index, dtable); });
    return Grads{dtable};
  };
  return record("embedding", y, {table}, gradient);
}

}  // namespace hax
