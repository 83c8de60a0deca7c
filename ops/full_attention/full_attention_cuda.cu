#include "ops/full_attention/full_attention_kernels.h"
#include "ops/sparse_attention/attention_cuda.cuh"

namespace hax {
namespace {

attention::Sizes sizes_of(const Tensor& Q, const Tensor& K, const Tensor& V,
                          const FullAttentionOptions& options) {
  return {Q.size(0),
          K.size(0),
          static_cast<int>(options.heads),
          static_cast<int>(options.kv_heads),
          static_cast<int>(Q.size(1) / options.heads),
          static_cast<int>(V.size(1) / options.kv_heads),
          static_cast<float>(options.scale)};
}

attention::Keys keys_of(const Sequences& sequences, const FullAttentionOptions& options,
                        const Tensor& rows) {
  return attention::window_view(sequences, options.window.value_or(sequences.tokens()), rows);
}

attention::Softmax softmax_of(const Tensor& lse, const FullAttentionOptions& options) {
  return {const_cast<float*>(lse.data<float>()), false, static_cast<int>(options.heads)};
}

}  // namespace

void full_attention_forward(Cuda, const Tensor& Q, const Tensor& K, const Tensor& V,
                            const Tensor& rows, const Sequences& sequences,
                            const FullAttentionOptions& options, Tensor& y, Tensor& lse) {
  cuda::visit_storage("full_attention", Q.dtype(), [&]<class T>() {
    attention::forward(sizes_of(Q, K, V, options), keys_of(sequences, options, rows), Q.data<T>(),
                       K.data<T>(), V.data<T>(), y.data<T>(), softmax_of(lse, options));
  });
}

void full_attention_backward(Cuda, const Tensor& dy, const Tensor& Q, const Tensor& K,
                             const Tensor& V, const Tensor& rows, const Tensor&, const Tensor& lse,
                             const Sequences& sequences, const FullAttentionOptions& options,
                             Tensor& dQ, Tensor& dK, Tensor& dV) {
  cuda::visit_storage("full_attention", Q.dtype(), [&]<class T>() {
    attention::backward(sizes_of(Q, K, V, options), keys_of(sequences, options, rows), dy.data<T>(),
                        Q.data<T>(), K.data<T>(), V.data<T>(), softmax_of(lse, options),
                        dQ.data<T>(), dK.data<T>(), dV.data<T>());
  });
}

}  // namespace hax
