#include "ops/sparse_attention/attention_cuda.cuh"
#include "ops/sparse_attention/sparse_attention_kernels.h"
#include "ops/sparse_attention/uniform_rows_cuda.h"

namespace hax {
namespace {

attention::Sizes sizes_of(const Tensor& Q, const Tensor& K, const Tensor& V) {
  return {Q.size(0), K.size(0), 1, 1, static_cast<int>(Q.size(1)), static_cast<int>(V.size(1)),
          1.0f};
}

attention::Softmax softmax_of(const Tensor& softmax) {
  return {const_cast<float*>(softmax.data<float>()), true, 1};
}

}  // namespace

void sparse_attention_forward(Cuda, const Tensor& Q, const Tensor& K, const Tensor& V,
                              const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& y,
                              Tensor& softmax) {
  cuda::visit_storage("sparse_attention", Q.dtype(), [&]<class T>() {
    attention::forward(sizes_of(Q, K, V), attention::key_set_view(keys, rows), Q.data<T>(),
                       K.data<T>(), V.data<T>(), y.data<T>(), softmax_of(softmax));
  });
  if (empty == EmptyRows::uniform) uniform_rows_forward(V, keys.sequences, rows, softmax, y);
}

void sparse_attention_backward(Cuda, const Tensor& dy, const Tensor& Q, const Tensor& K,
                               const Tensor& V, const Tensor& softmax, const KeySet& keys,
                               const Tensor& rows, EmptyRows empty, Tensor& dQ, Tensor& dK,
                               Tensor& dV) {
  cuda::visit_storage("sparse_attention", Q.dtype(), [&]<class T>() {
    attention::backward(sizes_of(Q, K, V), attention::key_set_view(keys, rows), dy.data<T>(),
                        Q.data<T>(), K.data<T>(), V.data<T>(), softmax_of(softmax), dQ.data<T>(),
                        dK.data<T>(), dV.data<T>());
  });
  if (empty == EmptyRows::uniform) {
    uniform_rows_backward(dy, Q, K, V, keys.sequences, rows, softmax, dQ, dK, dV);
  }
}

}  // namespace hax
