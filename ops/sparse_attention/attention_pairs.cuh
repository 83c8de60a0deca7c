// dK and dV of sparse_attention, pair by pair: a key's queries are a range of rows and those of its
// bin in another range, 8 of them at a time in a warp. Work in proportion to the pairs.
#pragma once

#include "ops/sparse_attention/attention_lists.cuh"

namespace hax::attention::pairs {

using lists::kThreads, lists::kWarps, lists::lane, lists::thread, lists::warp;

/// Keys of a block; all its warps share in the queries of each.
inline constexpr int kKeys = 4;
inline constexpr int kBatch = 8;  // queries that a warp takes at a time: lane l knows query l / 4
static_assert(kBatch == lists::kPerWarp);

/// Four numbers of a row, zeros where it has no column; `quad` as for lists::stage_quad.
template <class T>
__device__ float4 load_quad(const T* row, int column, int columns, bool quad) {
  if constexpr (std::is_same_v<T, float>) {
    if (quad && column < columns) return *reinterpret_cast<const float4*>(row + column);
  }
  float x[4];
  for (int i = 0; i < 4; ++i) {
    x[i] = column + i < columns ? cuda::to_float(row[column + i]) : 0.0f;
  }
  return make_float4(x[0], x[1], x[2], x[3]);
}

__device__ inline float dot(const float4& a, const float4& b, float sum) {
  sum += a.x * b.x;
  sum += a.y * b.y;
  sum += a.z * b.z;
  sum += a.w * b.w;
  return sum;
}
__device__ inline void add(float4& sum, float factor, const float4& x) {
  sum.x += factor * x.x;
  sum.y += factor * x.y;
  sum.z += factor * x.z;
  sum.w += factor * x.w;
}

/// A key of the block, and rows of the pack that may see it.
struct Ranges {
  std::int64_t bin;
  std::int32_t plain_begin, plain_end;  ///< by position
  std::int32_t band_begin, band_end;    ///< if their bin is the key's
};

/// Of dK, the quads 4 i + lane % 4 for i < kQuads: enough for 16 kQuads columns.
template <int kQuads>
struct Sums {
  float4 dkey[kQuads], dvalue;  // dkey: of the lane's query alone
};

template <class T, int kQuads>
struct Batch {
  Sizes sizes;
  lists::Quads quads;
  const T *dy, *Q;
  Softmax softmax;
  const float* delta;

  /// Adds the pairs of a key with K row `key` in shared memory and the lane's quad of its V row;
  /// `row` of query lane / 4, or -1.
  __device__ void add_to(Sums<kQuads>& sums, const float* key, const float4& value,
                         std::int32_t row) const {
    float4 g[kBatch];
    HAX_UNROLL
    for (int r = 0; r < kBatch; ++r) {
      const std::int64_t of_r = __shfl_sync(kAllLanes, row, 4 * r);
      g[r] = make_float4(0, 0, 0, 0);
      if (of_r >= 0) {
        g[r] = load_quad(dy + of_r * sizes.value_dim, 4 * lane(), sizes.value_dim, quads.value);
      }
    }
    float p = 0, score = 0, mean = 0;
    float4 mine[kQuads];
    HAX_UNROLL
    for (int i = 0; i < kQuads; ++i) {
      mine[i] = make_float4(0, 0, 0, 0);
      HAX_UNROLL
      for (int c = 0; c < 4; ++c) {
        const int column = 4 * (4 * i + c);
        if (row < 0 || column >= sizes.dim) continue;
        const float4 q = load_quad(Q + std::int64_t{row} * sizes.dim, column, sizes.dim, quads.dim);
        score = dot(*reinterpret_cast<const float4*>(key + column), q, score);
        if (c == lane() % 4) mine[i] = q;
      }
    }
    if (row >= 0) {
      p = lists::exponential(score * sizes.scale - softmax.largest(row, 0)) * softmax.inverse(row);
      mean = delta[row];
    }
    float share[kBatch];
    for (int r = 0; r < kBatch; ++r) share[r] = dot(g[r], value, 0.0f);
    const float moved = lists::sum_lanes(share) - mean;
    const float dscore = row >= 0 ? p * moved * sizes.scale : 0.0f;
    for (int i = 0; i < kQuads; ++i) add(sums.dkey[i], dscore, mine[i]);
    for (int r = 0; r < kBatch; ++r) add(sums.dvalue, lists::of_row(p, r), g[r]);
  }
};

// first_row [T + 1]: rows wanted before each token; null: all are.
template <class T, bool kBanded, int kQuads>
__global__ void __launch_bounds__(kThreads, kQuads == 1 ? 3 : 2)
    key_kernel(Sizes sizes, Keys keys, lists::Quads quads, const std::int32_t* first_row,
               const T* dy, const T* Q, const T* K, const T* V, Softmax softmax, const float* delta,
               T* dK, T* dV) {
  constexpr int kColumnsOfBoth = kColumns + 16 * kQuads;
  HAX_SHARED(segment, lists::Segment[kKeys]);
  HAX_SHARED(ranges, Ranges[kKeys]);
  HAX_SHARED(key_rows, float4[kKeys][4 * kQuads]);
  HAX_SHARED(partial, float4[kKeys][kWarps][kColumnsOfBoth / 4]);
  HAX_SHARED(worked, bool[kKeys][kWarps]);
  HAX_SHARED(found, std::int32_t[kWarps][kWarp]);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kKeys;
  const int i = thread();
  if (i < kKeys) segment[i] = {-1, -1};
  for (int at = i; at < kKeys * 4 * kQuads; at += kThreads) {
    const std::int64_t u = first + at / (4 * kQuads);
    const int column = 4 * (at % (4 * kQuads));
    key_rows[at / (4 * kQuads)][at % (4 * kQuads)] =
        u < sizes.tokens ? load_quad(K + u * sizes.dim, column, sizes.dim, quads.dim)
                         : make_float4(0, 0, 0, 0);
  }
  __syncthreads();
  for (std::int64_t s = i; s < keys.sequences; s += kThreads) {
    const std::int32_t begin = keys.offsets[s], end = keys.offsets[s + 1];
    for (int k = 0; k < kKeys; ++k) {
      if (begin <= first + k && first + k < end) segment[k] = {begin, end};
    }
  }
  __syncthreads();
  if (i < kKeys) {
    const std::int64_t u = first + i;
    Ranges of{0, 0, 0, 0, 0};
    if (segment[i].begin >= 0) {
      const Key key = keys.key(u, segment[i].begin, segment[i].end);
      const auto row_at = [&](std::int64_t token) {
        return first_row ? first_row[token] : static_cast<std::int32_t>(token);
      };
      of.plain_begin = row_at(u);
      of.plain_end = row_at(key.death);
      if constexpr (kBanded) {
        of.bin = key.bin;
        of.band_begin = of.plain_end;
        of.band_end = key.expire > key.death ? row_at(key.expire) : of.band_begin;
      }
    }
    ranges[i] = of;
  }
  __syncthreads();
  const Batch<T, kQuads> batch{sizes, quads, dy, Q, softmax, delta};
  for (int k = 0; k < kKeys; ++k) {
    const Ranges of = ranges[k];
    const int turn = (warp() + k * (kWarps / kKeys)) % kWarps;
    const auto* key = reinterpret_cast<const float*>(key_rows[k]);
    Sums<kQuads> sums{};
    bool any = false;
    float4 value = make_float4(0, 0, 0, 0);
    const auto add_rows = [&](std::int32_t row) {
      if (!any) {
        value =
            load_quad(V + (first + k) * sizes.value_dim, 4 * lane(), sizes.value_dim, quads.value);
      }
      any = true;
      batch.add_to(sums, key, value, row);
    };
    for (std::int32_t base = of.plain_begin + turn * kBatch; base < of.plain_end;
         base += kWarps * kBatch) {
      const std::int32_t row = base + lane() / 4;
      add_rows(row < of.plain_end ? row : -1);
    }
    if constexpr (kBanded) {
      for (std::int32_t base = of.band_begin + turn * kWarp; base < of.band_end;
           base += kWarps * kWarp) {
        const std::int32_t row = base + lane();
        const bool match = row < of.band_end && keys.query_bin[keys.token_of(row)] == of.bin;
        const unsigned votes = __ballot_sync(kAllLanes, match);
        if (votes == 0) continue;
        __syncwarp();
        if (match) {
          found[warp()][__popc(votes & ((1u << lane()) - 1))] = lane();
        }
        __syncwarp();
        const int matches = __popc(votes);
        for (int from = 0; from < matches; from += kBatch) {
          const int at = from + lane() / 4;
          add_rows(at < matches ? base + found[warp()][at] : -1);
        }
      }
    }
    if (lane() == 0) worked[k][warp()] = any;
    if (!any) continue;
    for (int distance = 4; distance < kWarp; distance *= 2) {
      for (float4& x : sums.dkey) {
        x.x += __shfl_xor_sync(kAllLanes, x.x, distance);
        x.y += __shfl_xor_sync(kAllLanes, x.y, distance);
        x.z += __shfl_xor_sync(kAllLanes, x.z, distance);
        x.w += __shfl_xor_sync(kAllLanes, x.w, distance);
      }
    }
    partial[k][warp()][lane()] = sums.dvalue;
    if (lane() < 4) {
      for (int q = 0; q < kQuads; ++q) {
        partial[k][warp()][kColumns / 4 + 4 * q + lane()] = sums.dkey[q];
      }
    }
  }
  __syncthreads();
  for (int at = i; at < kKeys * kColumnsOfBoth; at += kThreads) {
    const int k = at / kColumnsOfBoth, column = at % kColumnsOfBoth;
    const std::int64_t u = first + k;
    const bool of_value = column < kColumns;
    const int to = of_value ? column : column - kColumns;
    if (u >= sizes.tokens || to >= (of_value ? sizes.value_dim : sizes.dim)) continue;
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (worked[k][w]) sum += reinterpret_cast<const float*>(partial[k][w])[column];
    }
    if (of_value) {
      dV[u * sizes.value_dim + to] = cuda::from_float<T>(sum);
    } else {
      dK[u * sizes.dim + to] = cuda::from_float<T>(sum);
    }
  }
}

}  // namespace hax::attention::pairs
