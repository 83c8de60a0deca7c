#include "ops/full_attention/full_attention.h"

#include <cmath>

#include "engine/dispatch.h"
#include "ops/full_attention/full_attention_kernels.h"

namespace hax {
namespace {

void check_inputs(const Tensor& Q, const Tensor& K, const Tensor& V, const Sequences& sequences,
                  const FullAttentionOptions& options, const Tensor& rows) {
  check(options.heads >= 1 && options.kv_heads >= 1 && options.heads % options.kv_heads == 0,
        "full_attention: {} heads with {} key/value heads, expected a multiple of them",
        options.heads, options.kv_heads);
  check(std::isfinite(options.scale), "full_attention: scale is {}, expected a finite number",
        options.scale);
  check(options.window.value_or(1) >= 1,
        "full_attention: window is {}, expected at least 1 (the query's own key)",
        options.window.value_or(1));
  check(Q.rank() == 2 && K.rank() == 2 && V.rank() == 2 && Q.size(1) % options.heads == 0 &&
            K.size(1) == Q.size(1) / options.heads * options.kv_heads &&
            V.size(1) % options.kv_heads == 0 && V.size(0) == K.size(0),
        "full_attention: Q is {}, K is {}, V is {} with {} heads and {} key/value heads, expected "
        "[R, heads N], [T, kv_heads N], [T, kv_heads P]",
        Q.shape(), K.shape(), V.shape(), options.heads, options.kv_heads);
  check(Q.dtype() == K.dtype() && Q.dtype() == V.dtype(),
        "full_attention: Q is {}, K is {}, V is {}, expected equal types", name_of(Q.dtype()),
        name_of(K.dtype()), name_of(V.dtype()));
  sequences.require_tokens("full_attention", K.size(0));
  if (rows) {
    check(rows.dtype() == DType::int32 && rows.shape() == Shape{Q.size(0)},
          "full_attention: rows are {} {} and Q is {}, expected int32 [R] and [R, heads N]",
          name_of(rows.dtype()), rows.shape(), Q.shape());
  } else {
    check(Q.size(0) == K.size(0),
          "full_attention: Q has {} rows and K has {}, expected equally many unless rows are given",
          Q.size(0), K.size(0));
  }
}

}  // namespace

Var full_attention(const Var& Q, const Var& K, const Var& V, const Sequences& sequences,
                   const FullAttentionOptions& options, const Tensor& wanted) {
  const Tensor q = Q.value(), k = K.value(), v = V.value(), rows = to_device(wanted, Q.device());
  check_inputs(q, k, v, sequences, options, rows);

  const std::int64_t value_dim = v.size(1) / options.kv_heads;
  Tensor y = Tensor::empty({q.size(0), options.heads * value_dim}, q.dtype(), q.device());
  Tensor lse = Tensor::empty({q.size(0), options.heads}, sum_type(q.dtype()), q.device());
  on_device(q.device(), [&](auto device) {
    full_attention_forward(device, q, k, v, rows, sequences, options, y, lse);
  });

  const auto gradient = [=](const Tensor& dy) {
    Tensor dQ = Tensor::empty(q.shape(), q.dtype(), q.device());
    Tensor dK = Tensor::empty(k.shape(), k.dtype(), k.device());
    Tensor dV = Tensor::empty(v.shape(), v.dtype(), v.device());
    on_device(q.device(), [&](auto device) {
      full_attention_backward(device, dy, q, k, v, rows, y, lse, sequences, options, dQ, dK, dV);
    });
    return Grads{dQ, dK, dV};
  };
  return record("full_attention", y, {Q, K, V}, gradient);
}

}  // namespace hax
