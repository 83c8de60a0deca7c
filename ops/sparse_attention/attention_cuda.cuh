// Softmax attention of sparse_attention and full_attention on CUDA. Page: sparse_attention.md
#pragma once

#include "ops/sparse_attention/attention_key_tiles.cuh"
#include "ops/sparse_attention/attention_list_keys.cuh"
#include "ops/sparse_attention/attention_list_queries.cuh"
#include "ops/sparse_attention/attention_pairs.cuh"
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

/// Whether rows fit into what the kernels over lists and pairs hold of them.
inline bool narrow(const Sizes& sizes) {
  return sizes.dim > 0 && sizes.dim <= lists::kMostDim && sizes.value_dim > 0 &&
         sizes.value_dim <= lists::kMostValueDim;
}

template <class... Tables>
bool all_in_quads(std::int64_t columns, const Tables*... tables) {
  return (lists::in_quads(tables, columns) && ...);
}

inline dim3 list_grid(std::int64_t items, int heads) {
  return dim3(cuda::blocks(cuda::ceil_div(items, lists::kRows)), cuda::blocks(heads));
}

/// The keys that are seen by position alone, or, without `partial`, all.
template <class T>
void forward_of_lists(const Sizes& sizes, const Keys& keys, const T* Q, const T* K, const T* V,
                      T* y, const Softmax& softmax, const Partial& partial) {
  if (!narrow(sizes)) {
    cuda::launch(tiles::forward_kernel<T>,
                 {tiles::grid(sizes.rows, sizes.heads, sizes.value_dim), tiles::kThreads}, sizes,
                 keys, Q, K, V, y, softmax, partial);
    return;
  }
  const lists::Quads quads{all_in_quads(sizes.dim, Q, K), all_in_quads(sizes.value_dim, V, y)};
  const cuda::LaunchShape shape{list_grid(sizes.rows, sizes.heads), lists::kThreads,
                                lists::QueryTile::bytes(sizes, false)};
  cuda::launch(keys.key_bin ? lists::forward_kernel<T, true> : lists::forward_kernel<T, false>,
               shape, sizes, keys, quads, Q, K, V, y, softmax, partial);
}

template <class T>
void queries_of_lists(const Sizes& sizes, const Keys& keys, const T* dy, const T* Q, const T* K,
                      const T* V, const Softmax& softmax, T* dQ, float* delta,
                      const Partial& partial) {
  if (!narrow(sizes)) {
    cuda::launch(tiles::query_kernel<T>,
                 {tiles::grid(sizes.rows, sizes.heads, sizes.dim), tiles::kThreads}, sizes, keys,
                 dy, Q, K, V, softmax, dQ, delta, partial);
    return;
  }
  const lists::Quads quads{all_in_quads(sizes.dim, Q, K), all_in_quads(sizes.value_dim, dy, V)};
  const cuda::LaunchShape shape{list_grid(sizes.rows, sizes.heads), lists::kThreads,
                                lists::QueryTile::bytes(sizes, true)};
  cuda::launch(keys.key_bin ? lists::query_kernel<T, true> : lists::query_kernel<T, false>, shape,
               sizes, keys, quads, dy, Q, K, V, softmax, dQ, delta, partial);
}

/// Q [R, heads dim], K [T, kv_heads dim], V [T, kv_heads value_dim] -> y [R, heads value_dim] and
/// the softmax of its rows. Rows without a key: y = 0.
template <class T>
void forward(const Sizes& sizes, const Keys& keys, const T* Q, const T* K, const T* V, T* y,
             const Softmax& softmax) {
  if (!keys.key_bin || !long_sequences(sizes, keys)) {
    return forward_of_lists(sizes, keys, Q, K, V, y, softmax, Partial{});
  }
  Tensor plain = Tensor::empty({sizes.rows, sizes.value_dim}, DType::float32, kCuda);
  Tensor numbers = Tensor::empty({sizes.rows, 2}, DType::float32, kCuda);
  const Partial partial{plain.data<float>(), nullptr, numbers.data<float>()};
  forward_of_lists(sizes, without_band(keys), Q, K, V, y, Softmax{partial.numbers, true, 1},
                   partial);
  cuda::launch(warps::forward_kernel<T>,
               {warps::grid(sizes.rows, 1, sizes.value_dim), warps::kWarps * kWarp}, sizes, keys, Q,
               K, V, y, softmax, partial);
}

/// dQ, and delta [R, heads]: sum_j p_j dp_j of each row.
template <class T>
void backward_of_queries(const Sizes& sizes, const Keys& keys, const T* dy, const T* Q, const T* K,
                         const T* V, const Softmax& softmax, float* delta, T* dQ) {
  if (!keys.key_bin || !long_sequences(sizes, keys)) {
    return queries_of_lists(sizes, keys, dy, Q, K, V, softmax, dQ, delta, Partial{});
  }
  Tensor plain = Tensor::empty({sizes.rows, sizes.dim}, DType::float32, kCuda);
  Tensor moved = Tensor::empty({sizes.rows, sizes.dim}, DType::float32, kCuda);
  Tensor numbers = Tensor::empty({sizes.rows}, DType::float32, kCuda);
  const Partial partial{plain.data<float>(), moved.data<float>(), numbers.data<float>()};
  queries_of_lists(sizes, without_band(keys), dy, Q, K, V, softmax, dQ, partial.numbers, partial);
  cuda::launch(warps::query_kernel<T>,
               {warps::grid(sizes.rows, 1, sizes.dim), warps::kWarps * kWarp}, sizes, keys, dy, Q,
               K, V, softmax, dQ, delta, partial);
}

/// dK and dV, from delta. A key set's keys have few queries each; a window's neighbours share
/// most of theirs.
template <class T>
void backward_of_keys(const Sizes& sizes, const Keys& keys, const T* dy, const T* Q, const T* K,
                      const T* V, const Softmax& softmax, const float* delta, T* dK, T* dV) {
  if (!narrow(sizes)) {
    const int width = sizes.dim > sizes.value_dim ? sizes.dim : sizes.value_dim;
    if (!keys.death || !long_sequences(sizes, keys)) {
      cuda::launch(tiles::key_kernel<T>,
                   {tiles::grid(sizes.tokens, sizes.kv_heads, width), tiles::kThreads}, sizes, keys,
                   dy, Q, K, V, softmax, delta, dK, dV);
    } else {
      cuda::launch(warps::key_kernel<T>,
                   {warps::grid(sizes.tokens, sizes.kv_heads, width), warps::kWarps * kWarp}, sizes,
                   keys, dy, Q, K, V, softmax, delta, dK, dV);
    }
    return;
  }
  Tensor rows_before;
  if (keys.rows) rows_before = first_rows(keys.rows, sizes.rows, sizes.tokens);
  const std::int32_t* first_row = keys.rows ? rows_before.data<std::int32_t>() : nullptr;
  const lists::Quads quads{all_in_quads(sizes.dim, Q, K), all_in_quads(sizes.value_dim, dy, V, dV)};
  if (!keys.death) {
    const cuda::LaunchShape shape{list_grid(sizes.tokens, sizes.kv_heads), lists::kThreads,
                                  lists::KeyTile::bytes(sizes)};
    cuda::launch(lists::key_kernel<T>, shape, sizes, keys, quads, first_row, dy, Q, K, V, softmax,
                 delta, dK, dV);
    return;
  }
  const cuda::LaunchShape shape{cuda::blocks(cuda::ceil_div(sizes.tokens, pairs::kKeys)),
                                lists::kThreads};
  const auto run = [&](auto kernel) {
    cuda::launch(kernel, shape, sizes, keys, quads, first_row, dy, Q, K, V, softmax, delta, dK, dV);
  };
  const bool few = sizes.dim <= 16;
  if (keys.key_bin) {
    run(few ? pairs::key_kernel<T, true, 1> : pairs::key_kernel<T, true, 4>);
  } else {
    run(few ? pairs::key_kernel<T, false, 1> : pairs::key_kernel<T, false, 4>);
  }
}

template <class T>
void backward(const Sizes& sizes, const Keys& keys, const T* dy, const T* Q, const T* K, const T* V,
              const Softmax& softmax, T* dQ, T* dK, T* dV) {
  Tensor delta = Tensor::empty({sizes.rows, sizes.heads}, DType::float32, kCuda);
  backward_of_queries(sizes, keys, dy, Q, K, V, softmax, delta.data<float>(), dQ);
  backward_of_keys(sizes, keys, dy, Q, K, V, softmax, delta.data<float>(), dK, dV);
}

}  // namespace hax::attention
