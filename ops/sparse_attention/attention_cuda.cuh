// Softmax attention of sparse_attention and full_attention on CUDA. Page: sparse_attention.md
#pragma once

#include "ops/sparse_attention/attention_key_tiles.cuh"
#include "ops/sparse_attention/attention_query_tiles.cuh"
#include "ops/sparse_attention/attention_warps.cuh"

namespace hax::attention {

/// In sequences longer than this on average, tiles would mostly hold pairs that do not see each
/// other: keys of a bin are gathered instead. A float32 tile handles a query's L / 2 pairs in about
/// the time in which the second-level cache delivers the rows of 64 keys, for L of about 1,000.
inline constexpr std::int64_t kLongSequence = 1024;

inline bool long_sequences(const Sizes& sizes, const Keys& keys) {
  return sizes.tokens > kLongSequence * (keys.sequences > 1 ? keys.sequences : 1);
}

/// Q [R, heads dim], K [T, kv_heads dim], V [T, kv_heads value_dim] -> y [R, heads value_dim] and
/// the softmax of its rows. Rows without a key: y = 0.
template <class T>
void forward(const Sizes& sizes, const Keys& keys, const T* Q, const T* K, const T* V, T* y,
             const Softmax& softmax) {
  const dim3 grid = tiles::grid(sizes.rows, sizes.heads, sizes.value_dim);
  if (!keys.key_bin || !long_sequences(sizes, keys)) {
    cuda::launch(tiles::forward_kernel<T>, {grid, tiles::kThreads}, sizes, keys, Q, K, V, y,
                 softmax, Partial{});
    return;
  }
  Tensor plain = Tensor::empty({sizes.rows, sizes.value_dim}, DType::float32, kCuda);
  Tensor numbers = Tensor::empty({sizes.rows, 2}, DType::float32, kCuda);
  const Partial partial{plain.data<float>(), nullptr, numbers.data<float>()};
  cuda::launch(tiles::forward_kernel<T>, {grid, tiles::kThreads}, sizes, without_band(keys), Q, K,
               V, y, Softmax{partial.numbers, true, 1}, partial);
  cuda::launch(warps::forward_kernel<T>,
               {warps::grid(sizes.rows, 1, sizes.value_dim), warps::kWarps * kWarp}, sizes, keys, Q,
               K, V, y, softmax, partial);
}

/// dQ, and delta [R, heads]: sum_j p_j dp_j of each row.
template <class T>
void backward_of_queries(const Sizes& sizes, const Keys& keys, const T* dy, const T* Q, const T* K,
                         const T* V, const Softmax& softmax, float* delta, T* dQ) {
  const dim3 grid = tiles::grid(sizes.rows, sizes.heads, sizes.dim);
  if (!keys.key_bin || !long_sequences(sizes, keys)) {
    cuda::launch(tiles::query_kernel<T>, {grid, tiles::kThreads}, sizes, keys, dy, Q, K, V, softmax,
                 dQ, delta, Partial{});
    return;
  }
  Tensor plain = Tensor::empty({sizes.rows, sizes.dim}, DType::float32, kCuda);
  Tensor moved = Tensor::empty({sizes.rows, sizes.dim}, DType::float32, kCuda);
  Tensor numbers = Tensor::empty({sizes.rows}, DType::float32, kCuda);
  const Partial partial{plain.data<float>(), moved.data<float>(), numbers.data<float>()};
  cuda::launch(tiles::query_kernel<T>, {grid, tiles::kThreads}, sizes, without_band(keys), dy, Q, K,
               V, softmax, dQ, partial.numbers, partial);
  cuda::launch(warps::query_kernel<T>,
               {warps::grid(sizes.rows, 1, sizes.dim), warps::kWarps * kWarp}, sizes, keys, dy, Q,
               K, V, softmax, dQ, delta, partial);
}

template <class T>
void backward(const Sizes& sizes, const Keys& keys, const T* dy, const T* Q, const T* K, const T* V,
              const Softmax& softmax, T* dQ, T* dK, T* dV) {
  Tensor delta = Tensor::empty({sizes.rows, sizes.heads}, DType::float32, kCuda);
  backward_of_queries(sizes, keys, dy, Q, K, V, softmax, delta.data<float>(), dQ);
  const int width = sizes.dim > sizes.value_dim ? sizes.dim : sizes.value_dim;
  if (!keys.death || !long_sequences(sizes, keys)) {
    cuda::launch(tiles::key_kernel<T>,
                 {tiles::grid(sizes.tokens, sizes.kv_heads, width), tiles::kThreads}, sizes, keys,
                 dy, Q, K, V, softmax, delta.data<float>(), dK, dV);
  } else {
    cuda::launch(warps::key_kernel<T>,
                 {warps::grid(sizes.tokens, sizes.kv_heads, width), warps::kWarps * kWarp}, sizes,
                 keys, dy, Q, K, V, softmax, delta.data<float>(), dK, dV);
  }
}

}  // namespace hax::attention
