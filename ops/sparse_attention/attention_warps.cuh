// Attention by gathering, for long sequences: a warp takes a query and walks the keys of its bin,
// or a key and walks its queries, 32 at a time. Work in proportion to the pairs.
#pragma once

#include "ops/sparse_attention/attention_keys.cuh"

namespace hax::attention::warps {

inline constexpr int kWarps = 8;  // of a block: neighbours that share most of their keys
inline constexpr int kPerLane = kColumns / kWarp;

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline std::int64_t warp_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
}

// Calls visit(token, visible) with up to 32 keys of the query's bin, one a lane, not all of them
// visible, in order, without those that are seen by position.
template <class F>
__device__ void walk_band(const Keys& keys, const Query& query, F visit) {
  const std::int64_t begin = query.begin, i = query.token - begin;
  const std::int64_t end = keys.offsets[keys.sequence_of(query.token) + 1];
  const auto token = [&](std::int64_t place) { return begin + keys.order[place]; };
  // The bin's keys that are neither expired nor after the query: expiry never decreases in a bin.
  const std::int64_t low = first_where(begin, end, [&](std::int64_t place) {
    const std::int64_t u = token(place), bin = keys.key_bin[u];
    return bin > query.bin || (bin == query.bin && keys.expire[u] > i);
  });
  const std::int64_t high = first_where(low, end, [&](std::int64_t place) {
    const std::int64_t u = token(place);
    return keys.key_bin[u] > query.bin || u > query.token;
  });
  for (std::int64_t base = low; base < high; base += kWarp) {
    const bool inside = base + lane() < high;
    const std::int64_t u = token(inside ? base + lane() : base);
    const bool visible = inside && i >= keys.death[u];
    if (__any_sync(kAllLanes, visible)) visit(u, visible);
  }
}

// Calls visit(row, visible) with up to 32 of the rows that may see the key, one a lane.
template <class F>
__device__ void walk_queries(const Keys& keys, const Key& key, std::int64_t rows, F visit) {
  const std::int64_t first = keys.row_at(key.token, rows), last = keys.row_at(key.until(), rows);
  for (std::int64_t base = first; base < last; base += kWarp) {
    const std::int64_t row = base + lane();
    bool visible = false;
    if (row < last) {
      const std::int64_t t = keys.token_of(row);
      visible = sees(t, keys.banded() ? keys.query_bin[t] : 0, key);
    }
    if (__any_sync(kAllLanes, visible)) visit(row, visible);
  }
}

// Calls visit(lane) for the lanes whose predicate holds.
template <class F>
__device__ void for_each_lane(bool predicate, F visit) {
  for (unsigned left = __ballot_sync(kAllLanes, predicate); left != 0; left &= left - 1) {
    visit(__ffs(static_cast<int>(left)) - 1);
  }
}

// sums[c] += factor row[column(c)]
template <class T>
__device__ void add_row(float factor, const T* row, int first, int count, float* sums) {
  for (int c = 0; c < kPerLane; ++c) {
    const int column = first + c * kWarp + lane();
    if (column < count) sums[c] += factor * cuda::to_float(row[column]);
  }
}
template <class T>
__device__ void store_row(const float* sums, float factor, int first, int count, T* row) {
  for (int c = 0; c < kPerLane; ++c) {
    const int column = first + c * kWarp + lane();
    if (column < count) row[column] = cuda::from_float<T>(sums[c] * factor);
  }
}

// y = softmax over the keys by position, which is there, and those of the band. blockIdx.y:
// columns.
template <class T>
__global__ void forward_kernel(Sizes sizes, Keys keys, const T* Q, const T* K, const T* V, T* y,
                               Softmax softmax, Partial partial) {
  const std::int64_t row = warp_index();
  if (row >= sizes.rows) return;
  const int first = static_cast<int>(blockIdx.y) * kColumns;
  const T* q = Q + row * sizes.dim;
  const float inverse = partial.numbers[2 * row + 1];
  float largest = inverse > 0 ? partial.numbers[2 * row] : -INFINITY;
  float sum = inverse > 0 ? 1 / inverse : 0.0f, result[kPerLane] = {};
  add_row(sum, partial.plain + row * sizes.value_dim, first, sizes.value_dim, result);
  walk_band(keys, keys.query(keys.token_of(row)), [&](std::int64_t u, bool visible) {
    const float score = visible ? sizes.scale * dot(q, K + u * sizes.dim, sizes.dim) : -INFINITY;
    const float before = largest;
    largest = fmaxf(before, cuda::warp_max(score));
    const float weight = visible ? expf(score - largest) : 0.0f, shrink = expf(before - largest);
    sum = sum * shrink + cuda::warp_sum(weight);
    for (float& r : result) r *= shrink;
    for_each_lane(visible, [&](int source) {
      const std::int64_t seen = __shfl_sync(kAllLanes, u, source);
      add_row(__shfl_sync(kAllLanes, weight, source), V + seen * sizes.value_dim, first,
              sizes.value_dim, result);
    });
  });
  store_row(result, sum > 0 ? 1 / sum : 0.0f, first, sizes.value_dim, y + row * sizes.value_dim);
  if (first == 0 && lane() == 0) softmax.write(row, 0, largest, sum);
}

// dQ = scale (sum p dp K - delta sum p K), delta = sum p dp: the band's share of the three sums,
// and what they give. blockIdx.y: columns.
template <class T>
__global__ void query_kernel(Sizes sizes, Keys keys, const T* dy, const T* Q, const T* K,
                             const T* V, Softmax softmax, T* dQ, float* delta, Partial partial) {
  const std::int64_t row = warp_index();
  if (row >= sizes.rows) return;
  const int first = static_cast<int>(blockIdx.y) * kColumns;
  const T *q = Q + row * sizes.dim, *g = dy + row * sizes.value_dim;
  const float largest = softmax.largest(row, 0), inverse = softmax.inverse(row);
  float mean = 0, moved[kPerLane] = {}, plain[kPerLane] = {};
  add_row(1.0f, partial.moved + row * sizes.dim, first, sizes.dim, moved);
  add_row(1.0f, partial.plain + row * sizes.dim, first, sizes.dim, plain);
  walk_band(keys, keys.query(keys.token_of(row)), [&](std::int64_t u, bool visible) {
    float weight = 0, share = 0;
    if (visible) {
      const float score = sizes.scale * dot(q, K + u * sizes.dim, sizes.dim);
      weight = expf(score - largest) * inverse;
      share = weight * dot(g, V + u * sizes.value_dim, sizes.value_dim);
    }
    mean += share;
    for_each_lane(visible, [&](int source) {
      const T* k = K + __shfl_sync(kAllLanes, u, source) * sizes.dim;
      add_row(__shfl_sync(kAllLanes, share, source), k, first, sizes.dim, moved);
      add_row(__shfl_sync(kAllLanes, weight, source), k, first, sizes.dim, plain);
    });
  });
  mean = partial.numbers[row] + cuda::warp_sum(mean);
  for (int c = 0; c < kPerLane; ++c) moved[c] -= mean * plain[c];
  store_row(moved, sizes.scale, first, sizes.dim, dQ + row * sizes.dim);
  if (first == 0 && lane() == 0) delta[row] = mean;
}

// A warp a key. blockIdx.y: key/value head and columns, of dK and of dV.
template <class T>
__global__ void key_kernel(Sizes sizes, Keys keys, const T* dy, const T* Q, const T* K, const T* V,
                           Softmax softmax, const float* delta, T* dK, T* dV) {
  const std::int64_t u = warp_index();
  if (u >= sizes.tokens) return;
  const int kv_head = static_cast<int>(blockIdx.y) % sizes.kv_heads;
  const int first = static_cast<int>(blockIdx.y) / sizes.kv_heads * kColumns;
  const std::int64_t at = u * sizes.kv_heads + kv_head;
  const Key key = keys.key(u);
  const T *k = K + at * sizes.dim, *v = V + at * sizes.value_dim;
  float dkey[kPerLane] = {}, dvalue[kPerLane] = {};
  for (int h = 0; h < sizes.group(); ++h) {
    const int head = kv_head * sizes.group() + h;
    walk_queries(keys, key, sizes.rows, [&](std::int64_t row, bool visible) {
      const std::int64_t query = row * sizes.heads + head;
      float weight = 0, dscore = 0;
      if (visible) {
        const float score = sizes.scale * dot(Q + query * sizes.dim, k, sizes.dim);
        weight = expf(score - softmax.largest(row, head)) * softmax.inverse(row);
        const float dweight = dot(dy + query * sizes.value_dim, v, sizes.value_dim);
        dscore = weight * (dweight - delta[query]) * sizes.scale;
      }
      for_each_lane(visible, [&](int source) {
        const std::int64_t seen = __shfl_sync(kAllLanes, query, source);
        add_row(__shfl_sync(kAllLanes, dscore, source), Q + seen * sizes.dim, first, sizes.dim,
                dkey);
        add_row(__shfl_sync(kAllLanes, weight, source), dy + seen * sizes.value_dim, first,
                sizes.value_dim, dvalue);
      });
    });
  }
  store_row(dkey, 1.0f, first, sizes.dim, dK + at * sizes.dim);
  store_row(dvalue, 1.0f, first, sizes.value_dim, dV + at * sizes.value_dim);
}

inline dim3 grid(std::int64_t items, int heads, int width) {
  const std::int64_t chunks = width > 0 ? cuda::ceil_div(width, kColumns) : 1;
  return dim3(cuda::blocks(cuda::ceil_div(items, kWarps)), cuda::blocks(heads * chunks));
}

}  // namespace hax::attention::warps
