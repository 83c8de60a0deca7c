#include "ops/sparse_attention/sparse_attention.h"

#include "engine/dispatch.h"
#include "ops/sparse_attention/sparse_attention_kernels.h"

namespace hax {
namespace {

void require_shapes(const Var& Q, const Var& K, const Var& V, const KeySet& keys,
                    const Tensor& rows) {
  check(Q.shape().rank() == 2 && K.shape().rank() == 2 && V.shape().rank() == 2 &&
            Q.size(1) == K.size(1) && K.size(0) == V.size(0),
        "sparse_attention: Q is {}, K is {} and V is {}, expected [R, N], [T, N] and [T, E]",
        Q.shape(), K.shape(), V.shape());
  check(is_floating(Q.dtype()) && Q.dtype() == K.dtype() && Q.dtype() == V.dtype(),
        "sparse_attention: Q is {}, K is {} and V is {}, expected one floating-point type",
        name_of(Q.dtype()), name_of(K.dtype()), name_of(V.dtype()));
  keys.sequences.require_tokens("sparse_attention", K.size(0));
  check(keys.death.defined() && keys.death.shape() == Shape{K.size(0)},
        "sparse_attention: the key set is not of this pack of {} tokens", K.size(0));
  const std::int64_t wanted = rows.defined() ? rows.numel() : K.size(0);
  check(Q.size(0) == wanted, "sparse_attention: Q has {} rows, expected one for each of the {} {}",
        Q.size(0), wanted, rows.defined() ? "rows wanted" : "tokens");
}

void require_rows(const Tensor& rows, std::int64_t tokens) {
  check(rows.dtype() == DType::int32 && rows.rank() == 1,
        "sparse_attention: rows are {} {}, expected int32 [R]", name_of(rows.dtype()),
        rows.shape());
  if (!rows.device().is_cpu()) return;  // reading them would stall the device
  std::int32_t before = -1;
  for (const std::int32_t row : rows.values<std::int32_t>()) {
    check(row > before && row < tokens,
          "sparse_attention: row {} follows {}, expected increasing rows below {}", row, before,
          tokens);
    before = row;
  }
}

}  // namespace

Var sparse_attention(const Var& Q, const Var& K, const Var& V, const KeySet& key_set,
                     const Tensor& wanted, EmptyRows empty) {
  require_shapes(Q, K, V, key_set, wanted);
  if (wanted.defined()) require_rows(wanted, K.size(0));
  const KeySet keys = to_device(key_set, Q.device());
  const Tensor rows = to_device(wanted, Q.device());

  const Tensor q = Q.value(), k = K.value(), v = V.value();
  Tensor y = Tensor::empty({Q.size(0), V.size(1)}, Q.dtype(), Q.device());
  Tensor softmax = Tensor::empty({Q.size(0), 2}, sum_type(Q.dtype()), Q.device());
  on_device(Q.device(), [&](auto device) {
    sparse_attention_forward(device, q, k, v, keys, rows, empty, y, softmax);
  });

  const auto gradient = [q, k, v, softmax, keys, rows, empty](const Tensor& dy) {
    Tensor dq = Tensor::empty(q.shape(), q.dtype(), q.device());
    Tensor dk = Tensor::empty(k.shape(), k.dtype(), k.device());
    Tensor dv = Tensor::empty(v.shape(), v.dtype(), v.device());
    on_device(q.device(), [&](auto device) {
      sparse_attention_backward(device, dy, q, k, v, softmax, keys, rows, empty, dq, dk, dv);
    });
    return Grads{dq, dk, dv};
  };
  return record("sparse_attention", y, {Q, K, V}, gradient);
}

}  // namespace hax
