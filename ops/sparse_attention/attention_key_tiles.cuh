// Tiles of keys against the queries that may see any of them: dK and dV.
#pragma once

#include "ops/sparse_attention/attention_tiles.cuh"

namespace hax::attention::tiles {

struct KeyTile {
  Products products;
  Factors weights, shares;
  Table table;
  Key key[kRows];
  std::int64_t token[kOthers], bin[kOthers];  // of the queries; token -1: none
  float largest[kOthers], inverse[kOthers], delta[kOthers];
};

// 64 keys of a key/value head, and kColumns columns of dK and of dV. blockIdx.y: head and columns.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    key_kernel(Sizes sizes, Keys keys, const T* dy, const T* Q, const T* K, const T* V,
               Softmax softmax, const float* delta, T* dK, T* dV) {
  HAX_SHARED(tile, KeyTile);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const int count = static_cast<int>(first + kRows < sizes.tokens ? kRows : sizes.tokens - first);
  const int kv_head = static_cast<int>(blockIdx.y) % sizes.kv_heads;
  const int first_column = static_cast<int>(blockIdx.y) / sizes.kv_heads * kColumns;
  const auto key_row = [&](auto* table, int columns, int i) {
    return i < count ? table + ((first + i) * sizes.kv_heads + kv_head) * columns : nullptr;
  };
  if (thread() < kRows) {
    tile.key[thread()] = thread() < count ? keys.key(first + thread()) : Key{0, 0, 0, 0};
  }
  __syncthreads();
  std::int64_t until = 0;
  for (int i = 0; i < count; ++i) until = max(until, tile.key[i].until());
  const std::int64_t first_row = keys.row_at(first, sizes.rows);
  const std::int64_t last_row = keys.row_at(until, sizes.rows);

  float dkey[kPerRow][kPerWidth] = {}, dvalue[kPerRow][kPerWidth] = {};
  for (int h = 0; h < sizes.group(); ++h) {
    const int head = kv_head * sizes.group() + h;
    for (std::int64_t base = first_row; base < last_row; base += kOthers) {
      const auto query_row = [&](const T* table, int columns, int k) {
        return base + k < last_row ? table + ((base + k) * sizes.heads + head) * columns : nullptr;
      };
      if (thread() < kOthers) {
        const std::int64_t row = base + thread(), token = row < last_row ? keys.token_of(row) : -1;
        tile.token[thread()] = token;
        tile.bin[thread()] = token >= 0 && keys.banded() ? keys.query_bin[token] : 0;
        tile.largest[thread()] = token >= 0 ? softmax.largest(row, head) : 0.0f;
        tile.inverse[thread()] = token >= 0 ? softmax.inverse(row) : 0.0f;
        tile.delta[thread()] = token >= 0 ? delta[row * sizes.heads + head] : 0.0f;
      }
      __syncthreads();
      unsigned seen = 0;  // a bit for each of the thread's pairs
      for (int r = 0; r < kPerRow; ++r) {
        for (int c = 0; c < kPerOther; ++c) {
          const int k = my_other() + c;
          const bool sees_it = sees(tile.token[k], tile.bin[k], tile.key[my_row() + r]);
          seen |= static_cast<unsigned>(sees_it) << (r * kPerOther + c);
        }
      }
      if (!__syncthreads_or(static_cast<int>(seen))) continue;
      float weight[kPerRow][kPerOther], share[kPerRow][kPerOther];
      multiply(
          tile.products, sizes.dim, [&](int i) { return key_row(K, sizes.dim, i); },
          [&](int k) { return query_row(Q, sizes.dim, k); }, weight);
      multiply(
          tile.products, sizes.value_dim, [&](int i) { return key_row(V, sizes.value_dim, i); },
          [&](int k) { return query_row(dy, sizes.value_dim, k); }, share);
      for (int r = 0; r < kPerRow; ++r) {
        for (int c = 0; c < kPerOther; ++c) {
          const int k = my_other() + c;
          const bool pair = (seen >> (r * kPerOther + c) & 1) != 0;
          const float score = weight[r][c] * sizes.scale;
          const float p = pair ? expf(score - tile.largest[k]) * tile.inverse[k] : 0.0f;
          weight[r][c] = p;
          share[r][c] = pair ? p * (share[r][c] - tile.delta[k]) * sizes.scale : 0.0f;
        }
      }
      tile.weights.put(weight);
      tile.shares.put(share);
      load(tile.table, first_column, sizes.value_dim,
           [&](int k) { return query_row(dy, sizes.value_dim, k); });
      __syncthreads();
      accumulate(tile.weights, tile.table, sizes.value_dim - first_column, dvalue);
      __syncthreads();
      load(tile.table, first_column, sizes.dim, [&](int k) { return query_row(Q, sizes.dim, k); });
      __syncthreads();
      accumulate(tile.shares, tile.table, sizes.dim - first_column, dkey);
      __syncthreads();
    }
  }
  store<T>(dkey, first_column, sizes.dim, [&](int i) { return key_row(dK, sizes.dim, i); });
  store<T>(dvalue, first_column, sizes.value_dim,
           [&](int i) { return key_row(dV, sizes.value_dim, i); });
}

}  // namespace hax::attention::tiles
