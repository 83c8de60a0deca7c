// Tiles of queries against the keys that any of them may see: y, and dQ.
#pragma once

#include "ops/sparse_attention/attention_tiles.cuh"

namespace hax::attention {

namespace tiles {

// A query tile's shared memory.
struct QueryTile {
  Products products;
  Factors weights, shares;
  Table table;
  std::int64_t token[kRows], bin[kRows];  // of the queries; token -1: none
  Key key[kOthers];
  std::int32_t list[kOthers + kThreads];  // tokens of keys that may be seen
  int counts[kThreads / kWarp];
};

// Where a block stands: 64 rows wanted, one head and kColumns columns of the result.
struct Place {
  std::int64_t first_row, first_token, last_token;
  int rows, head, kv_head, first_column;

  __device__ Place(const Sizes& sizes, const Keys& keys) {
    first_row = static_cast<std::int64_t>(blockIdx.x) * kRows;
    rows = static_cast<int>(first_row + kRows < sizes.rows ? kRows : sizes.rows - first_row);
    head = static_cast<int>(blockIdx.y) % sizes.heads;
    kv_head = head / sizes.group();
    first_column = static_cast<int>(blockIdx.y) / sizes.heads * kColumns;
    first_token = keys.token_of(first_row);
    last_token = keys.token_of(first_row + rows - 1);
  }
};

__device__ inline void load_queries(QueryTile& tile, const Keys& keys, const Place& place) {
  const int i = thread();
  if (i < kRows) {
    const std::int64_t token = i < place.rows ? keys.token_of(place.first_row + i) : -1;
    tile.token[i] = token;
    tile.bin[i] = token >= 0 && keys.banded() ? keys.query_bin[token] : 0;
  }
}

// Calls visit(list, count) with the tokens, at most kOthers at a time, of the keys that may be seen
// by a query of the tile, in order. All threads call it and get the same.
template <class F>
__device__ void for_each_key_tile(QueryTile& tile, const Keys& keys, const Place& place, F visit) {
  std::int64_t start = keys.offsets[keys.sequence_of(place.first_token)];
  if (!keys.death && place.first_token - keys.window + 1 > start) {
    start = place.first_token - keys.window + 1;
  }
  const int lane = thread() % kWarp, warp = thread() / kWarp;
  int held = 0;
  for (std::int64_t base = start; base <= place.last_token; base += kThreads) {
    const std::int64_t u = base + thread();
    const bool may = u <= place.last_token && keys.key(u).until() > max(u, place.first_token);
    const unsigned votes = __ballot_sync(kAllLanes, may);
    if (lane == 0) tile.counts[warp] = __popc(votes);
    __syncthreads();
    int at = held + __popc(votes & ((1u << lane) - 1));
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) at += tile.counts[w];
      held += tile.counts[w];
    }
    if (may) tile.list[at] = static_cast<std::int32_t>(u);
    __syncthreads();
    const bool last = base + kThreads > place.last_token;
    int done = 0;
    while (held - done >= kOthers || (last && done < held)) {
      const int count = held - done < kOthers ? held - done : kOthers;
      visit(tile.list + done, count);
      done += count;
    }
    held -= done;
    const std::int32_t rest = thread() < held ? tile.list[done + thread()] : 0;
    __syncthreads();
    if (thread() < held) tile.list[thread()] = rest;
  }
}

// Loads the keys of a tile; the barrier is up to the product that follows.
__device__ inline void load_keys(QueryTile& tile, const Keys& keys, const std::int32_t* list,
                                 int count) {
  if (thread() < kOthers) {
    tile.key[thread()] = thread() < count ? keys.key(list[thread()]) : Key{0, 0, 0, 0};
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    forward_kernel(Sizes sizes, Keys keys, const T* Q, const T* K, const T* V, T* y,
                   Softmax softmax, Partial partial) {
  HAX_SHARED(tile, QueryTile);
  const Place place(sizes, keys);
  const auto row_of = [&](auto* table, int width, int i) {
    return i < place.rows ? table + ((place.first_row + i) * sizes.heads + place.head) * width
                          : nullptr;
  };
  const int left = sizes.value_dim - place.first_column;
  const int width = left < kColumns ? left : kColumns;
  load_queries(tile, keys, place);
  float largest[kPerRow], sum[kPerRow] = {}, result[kPerRow][kPerWidth] = {};
  for (float& m : largest) m = -INFINITY;
  for_each_key_tile(tile, keys, place, [&](const std::int32_t* list, int count) {
    const auto key_row = [&](const T* table, int columns, int k) {
      return k < count ? table + (std::int64_t{list[k]} * sizes.kv_heads + place.kv_head) * columns
                       : nullptr;
    };
    load_keys(tile, keys, list, count);
    load(tile.table, place.first_column, sizes.value_dim,
         [&](int k) { return key_row(V, sizes.value_dim, k); });
    float score[kPerRow][kPerOther];
    __syncthreads();  // without columns to multiply there is no barrier below
    multiply(
        tile.products, sizes.dim, [&](int i) { return row_of(Q, sizes.dim, i); },
        [&](int k) { return key_row(K, sizes.dim, k); }, score);
    for (int r = 0; r < kPerRow; ++r) {
      const std::int64_t token = tile.token[my_row() + r], bin = tile.bin[my_row() + r];
      float peak = -INFINITY, added = 0;
      for (int c = 0; c < kPerOther; ++c) {
        score[r][c] =
            sees(token, bin, tile.key[my_other() + c]) ? score[r][c] * sizes.scale : -INFINITY;
        peak = fmaxf(peak, score[r][c]);
      }
      const float before = largest[r];
      largest[r] = fmaxf(before, max_over_others(peak));
      const bool any = largest[r] > -INFINITY;
      const float shrink = any ? expf(before - largest[r]) : 1.0f;
      for (float& s : score[r]) added += s = any ? expf(s - largest[r]) : 0.0f;
      sum[r] = sum[r] * shrink + sum_over_others(added);
      for (float& v : result[r]) v *= shrink;
    }
    tile.weights.put(score);
    __syncthreads();
    accumulate(tile.weights, tile.table, width, result);
    __syncthreads();
  });
  for (int r = 0; r < kPerRow; ++r) {
    const float inverse = sum[r] > 0 ? 1 / sum[r] : 0.0f;
    for (float& v : result[r]) v *= inverse;
    const int i = my_row() + r;
    if (i < place.rows && place.first_column == 0 && thread() % kSide == 0) {
      softmax.write(place.first_row + i, place.head, largest[r], sum[r]);
    }
  }
  if (partial.plain) {
    store<float>(result, place.first_column, sizes.value_dim,
                 [&](int i) { return row_of(partial.plain, sizes.value_dim, i); });
  } else {
    store<T>(result, place.first_column, sizes.value_dim,
             [&](int i) { return row_of(y, sizes.value_dim, i); });
  }
}

// dQ = scale (sum p dp K - delta sum p K).
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    query_kernel(Sizes sizes, Keys keys, const T* dy, const T* Q, const T* K, const T* V,
                 Softmax softmax, T* dQ, float* delta, Partial partial) {
  HAX_SHARED(tile, QueryTile);
  const Place place(sizes, keys);
  const auto row_of = [&](auto* table, int columns, int i) {
    return i < place.rows ? table + ((place.first_row + i) * sizes.heads + place.head) * columns
                          : nullptr;
  };
  const int left = sizes.dim - place.first_column;
  const int width = left < kColumns ? left : kColumns;
  load_queries(tile, keys, place);
  float largest[kPerRow] = {}, inverse[kPerRow] = {}, mean[kPerRow] = {};
  for (int r = 0; r < kPerRow; ++r) {
    if (my_row() + r >= place.rows) continue;
    largest[r] = softmax.largest(place.first_row + my_row() + r, place.head);
    inverse[r] = softmax.inverse(place.first_row + my_row() + r);
  }
  float moved[kPerRow][kPerWidth] = {}, plain[kPerRow][kPerWidth] = {};
  for_each_key_tile(tile, keys, place, [&](const std::int32_t* list, int count) {
    const auto key_row = [&](const T* table, int columns, int k) {
      return k < count ? table + (std::int64_t{list[k]} * sizes.kv_heads + place.kv_head) * columns
                       : nullptr;
    };
    load_keys(tile, keys, list, count);
    load(tile.table, place.first_column, sizes.dim,
         [&](int k) { return key_row(K, sizes.dim, k); });
    float score[kPerRow][kPerOther], share[kPerRow][kPerOther];
    __syncthreads();
    multiply(
        tile.products, sizes.dim, [&](int i) { return row_of(Q, sizes.dim, i); },
        [&](int k) { return key_row(K, sizes.dim, k); }, score);
    multiply(
        tile.products, sizes.value_dim, [&](int i) { return row_of(dy, sizes.value_dim, i); },
        [&](int k) { return key_row(V, sizes.value_dim, k); }, share);
    for (int r = 0; r < kPerRow; ++r) {
      const std::int64_t token = tile.token[my_row() + r], bin = tile.bin[my_row() + r];
      for (int c = 0; c < kPerOther; ++c) {
        const bool seen = sees(token, bin, tile.key[my_other() + c]);
        const float p = seen ? expf(score[r][c] * sizes.scale - largest[r]) * inverse[r] : 0.0f;
        score[r][c] = p;
        mean[r] += share[r][c] = seen ? p * share[r][c] : 0.0f;
      }
    }
    tile.weights.put(score);
    tile.shares.put(share);
    __syncthreads();
    accumulate(tile.weights, tile.table, width, plain);
    accumulate(tile.shares, tile.table, width, moved);
    __syncthreads();
  });
  for (int r = 0; r < kPerRow; ++r) {
    mean[r] = sum_over_others(mean[r]);
    const int i = my_row() + r;
    if (i < place.rows && place.first_column == 0 && thread() % kSide == 0) {
      delta[(place.first_row + i) * sizes.heads + place.head] = mean[r];
    }
    if (partial.plain) continue;
    for (int c = 0; c < kPerWidth; ++c) {
      moved[r][c] = sizes.scale * (moved[r][c] - mean[r] * plain[r][c]);
    }
  }
  if (partial.plain) {
    store<float>(moved, place.first_column, sizes.dim,
                 [&](int i) { return row_of(partial.moved, sizes.dim, i); });
    store<float>(plain, place.first_column, sizes.dim,
                 [&](int i) { return row_of(partial.plain, sizes.dim, i); });
  } else {
    store<T>(moved, place.first_column, sizes.dim, [&](int i) { return row_of(dQ, sizes.dim, i); });
  }
}

}  // namespace tiles
}  // namespace hax::attention
