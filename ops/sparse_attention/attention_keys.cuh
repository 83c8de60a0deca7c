// What the CUDA kernels of sparse_attention and full_attention share: sizes, and which keys a query
// sees, in rows of the pack instead of positions.
#pragma once

#include "engine/cuda/kernel.cuh"
#include "engine/sequences.h"
#include "ops/key_set/key_set.h"

namespace hax::attention {

using cuda::kAllLanes;
using cuda::kWarp;

/// Columns of a row of y, dQ, dK or dV that one block computes; wider rows take several blocks.
inline constexpr int kColumns = 128;

struct Sizes {
  std::int64_t rows, tokens;
  int heads, kv_heads, dim, value_dim;
  float scale;  ///< multiplies Q . K

  __host__ __device__ int group() const { return heads / kv_heads; }
};

/// First index in [low, high) where `past` holds; high if nowhere. It must hold from there on.
template <class F>
__device__ std::int64_t first_where(std::int64_t low, std::int64_t high, F past) {
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (past(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/// A row of the pack that is a query.
struct Query {
  std::int64_t token, begin;  ///< begin of its sequence
  std::int64_t bin;
};

/// A row of the pack that is a key: visible to the queries [token, death) of its sequence and to
/// those of its bin in [death, expire).
struct Key {
  std::int64_t token, death, expire;
  std::int64_t bin;

  /// No query sees the key from here on.
  __device__ std::int64_t until() const { return death > expire ? death : expire; }
};

/// A KeySet, or a window over all keys. Pointers are to device memory.
struct Keys {
  const std::int32_t* offsets;  // [S + 1]
  std::int64_t sequences;
  const std::int32_t* rows;   // wanted [R], or null: all
  std::int64_t window;        // without death: how many keys a query sees
  const std::int32_t* death;  // as in KeySet; null without
  const std::int64_t *query_bin, *key_bin;
  const std::int32_t *expire, *order;

  __device__ bool banded() const { return key_bin != nullptr; }
  __device__ std::int64_t token_of(std::int64_t row) const { return rows ? rows[row] : row; }
  __device__ std::int64_t sequence_of(std::int64_t token) const {
    return first_where(0, sequences, [&](std::int64_t s) { return offsets[s + 1] > token; });
  }
  /// First of the `count` rows wanted whose token is not below `token`.
  __device__ std::int64_t row_at(std::int64_t token, std::int64_t count) const {
    if (!rows) return token < count ? token : count;
    return first_where(0, count, [&](std::int64_t r) { return rows[r] >= token; });
  }
  __device__ Query query(std::int64_t token) const {
    return {token, offsets[sequence_of(token)], banded() ? query_bin[token] : 0};
  }
  __device__ Key key(std::int64_t token) const {
    const std::int64_t s = sequence_of(token);
    return key(token, offsets[s], offsets[s + 1]);
  }
  /// The key at `token` of the sequence [begin, end).
  __device__ Key key(std::int64_t token, std::int64_t begin, std::int64_t end) const {
    const auto until = [&](std::int64_t position) {
      return begin + position < end ? begin + position : end;
    };
    if (!death) return {token, token + window < end ? token + window : end, 0, 0};
    Key key{token, until(death[token]), 0, 0};
    if (banded()) {
      key.expire = until(expire[token]);
      key.bin = key_bin[token];
    }
    return key;
  }
};

__device__ inline bool sees(std::int64_t query, std::int64_t query_bin, const Key& key) {
  return key.token <= query && (query < key.death || (query < key.expire && query_bin == key.bin));
}

/// What the forward keeps of a row's softmax: the largest score and 1 / sum exp(score - largest),
/// or, not `paired`, their joint lse. A row without keys has inverse 0.
struct Softmax {
  float* numbers;  // [R, 2], or lse [R, heads]
  bool paired;
  int heads;

  __device__ void write(std::int64_t row, int head, float largest, float sum) const {
    if (!paired) {
      numbers[row * heads + head] = largest + logf(sum);
    } else {
      numbers[2 * row] = sum > 0 ? largest : 0.0f;
      numbers[2 * row + 1] = sum > 0 ? 1 / sum : 0.0f;
    }
  }
  __device__ float largest(std::int64_t row, int head) const {
    return paired ? numbers[2 * row] : numbers[row * heads + head];
  }
  __device__ float inverse(std::int64_t row) const { return paired ? numbers[2 * row + 1] : 1.0f; }
};

/// Float32 sums over the keys seen by position, which the kernels over query tiles leave to the
/// gathering ones; null: there is nothing to leave or to go on from. One head.
struct Partial {
  float* plain;    ///< [R, value_dim] y; in the backward [R, dim] sum p K
  float* moved;    ///< [R, dim] sum p dp K
  float* numbers;  ///< [R, 2] as Softmax; in the backward [R] sum p dp
};

template <class T>
__device__ float dot(const T* a, const T* b, int count) {
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += cuda::to_float(a[i]) * cuda::to_float(b[i]);
  return sum;
}

template <class Index>
__global__ void first_rows_kernel(const Index* rows, std::int64_t wanted, std::int64_t tokens,
                                  Index* before) {
  for (std::int64_t t = cuda::global_thread(); t <= tokens; t += cuda::global_threads()) {
    before[t] =
        static_cast<Index>(first_where(0, wanted, [&](std::int64_t r) { return rows[r] >= t; }));
  }
}
/// rows int32 [R], increasing -> int32 [tokens + 1]: how many of them are before each token.
inline Tensor first_rows(const std::int32_t* rows, std::int64_t wanted, std::int64_t tokens) {
  Tensor before = Tensor::empty({tokens + 1}, DType::int32, kCuda);
  cuda::launch(first_rows_kernel<std::int32_t>, {cuda::blocks_for(tokens + 1, 256), 256}, rows,
               wanted, tokens, before.data<std::int32_t>());
  return before;
}

/// On the host. `rows` may be undefined.
inline Keys window_view(const Sequences& sequences, std::int64_t window, const Tensor& rows) {
  const std::int64_t longest = sequences.tokens() > 1 ? sequences.tokens() : 1;
  return {sequences.offsets_on(kCuda).data<std::int32_t>(),
          sequences.count(),
          rows.defined() ? rows.data<std::int32_t>() : nullptr,
          window < longest ? window : longest,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr};
}
inline Keys key_set_view(const KeySet& keys, const Tensor& rows) {
  Keys view = window_view(keys.sequences, 1, rows);
  view.death = keys.death.data<std::int32_t>();
  if (keys.banded()) {
    view.query_bin = keys.query_bin.data<std::int64_t>();
    view.key_bin = keys.key_bin.data<std::int64_t>();
    view.expire = keys.expire.data<std::int32_t>();
    view.order = keys.order.data<std::int32_t>();
  }
  return view;
}

/// Those of the set that are seen by position alone.
inline Keys without_band(Keys keys) {
  keys.query_bin = keys.key_bin = nullptr;
  return keys;
}

}  // namespace hax::attention
