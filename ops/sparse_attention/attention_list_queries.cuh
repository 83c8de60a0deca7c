// Blocks of 64 queries against a list of the keys that any of them may see: y, and dQ.
#pragma once

#include "ops/sparse_attention/attention_lists.cuh"

namespace hax::attention::lists {

/// Keys that a block looks at before it computes with those it lists.
inline constexpr int kCandidates = 1024;

/// A block's shared memory; K, V, Q and, in the backward, dy follow.
struct alignas(16) QueryFixed {
  float factors[kWarps][kOthers * kPerWarp];
  int index[kWarps][kOthers];
  std::int64_t row_bin[kRows];
  std::int64_t bin[2][kOthers];                                         // of the keys
  std::int32_t key[2][kOthers], death[2][kOthers], expire[2][kOthers];  // in the segment
  std::int32_t row_token[kRows];                                        // -1: none
  std::int32_t position[kRows];          // of the queries in the segment, -1: not in it
  float largest[kRows], inverse[kRows];  // backward
  int counts[kWarp];
  Bins bins;
  Segment segment;
  std::uint16_t list[kCandidates];
};
struct QueryTile {
  QueryFixed& fixed;
  Width dim, value;
  float *K, *V, *Q, *dy;  // [2][kOthers], [kOthers], [kRows], [kRows]

  __device__ QueryTile(char* memory, const Sizes& sizes)
      : fixed(*reinterpret_cast<QueryFixed*>(memory)), dim(sizes.dim), value(sizes.value_dim) {
    K = reinterpret_cast<float*>(memory + sizeof(QueryFixed));
    V = K + 2 * kOthers * dim.pitch;
    Q = V + kOthers * value.pitch;
    dy = Q + kRows * dim.pitch;
  }
  static std::size_t bytes(const Sizes& sizes, bool backward) {
    const auto dim_row = static_cast<std::size_t>(Width(sizes.dim).pitch);
    const auto value_row = static_cast<std::size_t>(Width(sizes.value_dim).pitch);
    return sizeof(QueryFixed) + sizeof(float) * ((2 * kOthers + kRows) * dim_row +
                                                 (kOthers + (backward ? kRows : 0)) * value_row);
  }
  __device__ Factors my_factors() const { return {fixed.factors[warp()], fixed.index[warp()]}; }
};

/// Where a block stands: 64 rows wanted and one head.
struct Place {
  std::int64_t first_row;
  int rows, head, kv_head;

  __device__ explicit Place(const Sizes& sizes)
      : first_row(static_cast<std::int64_t>(blockIdx.x) * kRows),
        rows(static_cast<int>(first_row + kRows < sizes.rows ? kRows : sizes.rows - first_row)),
        head(static_cast<int>(blockIdx.y)),
        kv_head(head / sizes.group()) {}

  /// Row i of the block in a table [R, heads, columns]; null beyond the rows.
  template <class U>
  __device__ U* row(U* table, const Sizes& sizes, int columns, int i) const {
    return i < rows ? table + ((first_row + i) * sizes.heads + head) * columns : nullptr;
  }
};

/// The tokens and bins of the rows. A barrier is up to find_segment.
__device__ inline void load_rows(const QueryTile& tile, const Keys& keys, const Place& place) {
  const int i = thread();
  if (i >= kRows) return;
  const std::int64_t token = i < place.rows ? keys.token_of(place.first_row + i) : -1;
  tile.fixed.row_token[i] = static_cast<std::int32_t>(token);
  tile.fixed.row_bin[i] = token >= 0 && keys.banded() ? keys.query_bin[token] : 0;
}

/// Lists which of the keys base .. base + kCandidates - 1, up to `last`, some query from position
/// `first` on may see; returns how many. All threads call it; it begins and ends with a barrier.
template <bool kBanded>
__device__ int list_keys(const QueryTile& tile, const Keys& keys, std::int64_t begin,
                         std::int32_t base, std::int32_t first, std::int32_t last) {
  constexpr int kLooks = kCandidates / kThreads;
  static_assert(kLooks * kWarps == kWarp);
  unsigned votes[kLooks];
  bool may[kLooks];
  __syncthreads();
  for (int k = 0; k < kLooks; ++k) {
    const std::int32_t j = base + k * kThreads + thread(), from = max(j, first);
    may[k] = false;
    if (j <= last) {
      may[k] = keys.death ? keys.death[begin + j] > from : j + keys.window > from;
      if constexpr (kBanded) {
        may[k] = may[k] || (keys.expire[begin + j] > from &&
                            tile.fixed.bins.may_have(keys.key_bin[begin + j]));
      }
    }
  }
  for (int k = 0; k < kLooks; ++k) {
    votes[k] = __ballot_sync(kAllLanes, may[k]);
    if (lane() == 0) tile.fixed.counts[k * kWarps + warp()] = __popc(votes[k]);
  }
  __syncthreads();
  const int own = tile.fixed.counts[lane()];
  int until = own;  // listed by the looks and warps up to the lane's
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int before = __shfl_up_sync(kAllLanes, until, static_cast<unsigned>(distance));
    if (lane() >= distance) until += before;
  }
  for (int k = 0; k < kLooks; ++k) {
    const int at = __shfl_sync(kAllLanes, until - own, k * kWarps + warp());
    if (may[k]) {
      tile.fixed.list[at + __popc(votes[k] & ((1u << lane()) - 1))] =
          static_cast<std::uint16_t>(k * kThreads + thread());
    }
  }
  __syncthreads();
  return __shfl_sync(kAllLanes, until, kWarp - 1);
}

/// For every segment of the block's rows, which all belong to one sequence, and for every tile of
/// at most 64 keys that its queries may see: scores(buffer) when K and what is known of the keys is
/// in that half of their buffers, then values() when V is there too. All threads call it.
template <bool kBanded, class T, class Scores, class Values>
__device__ void for_each_tile(const QueryTile& tile, const Sizes& sizes, const Keys& keys,
                              const Place& place, const Quads& quads, const T* K, const T* V,
                              Scores scores, Values values) {
  int done = 0;
  while (done < place.rows) {
    __syncthreads();
    find_segment(tile.fixed.segment, keys, tile.fixed.row_token[done]);
    const Segment segment = tile.fixed.segment;
    if (segment.begin < 0) return;  // of no sequence; nor are the rows that follow
    const int i = thread();
    bool inside = i >= done && i < place.rows;
    inside = inside && tile.fixed.row_token[i] < segment.end;
    if (i < kRows) tile.fixed.position[i] = inside ? tile.fixed.row_token[i] - segment.begin : -1;
    if (kBanded && i < Bins::kWords) tile.fixed.bins.words[i] = 0;
    const std::int32_t first = tile.fixed.row_token[done] - segment.begin;
    const int past = done + __syncthreads_count(inside);
    const std::int32_t last = tile.fixed.row_token[past - 1] - segment.begin;
    if (kBanded && inside) tile.fixed.bins.put(tile.fixed.row_bin[i]);
    done = past;

    std::int32_t base = 0;
    if (!keys.death && first - keys.window + 1 > 0) {
      base = static_cast<std::int32_t>(first - keys.window + 1);
    }
    for (; base <= last; base += kCandidates) {
      const int listed = list_keys<kBanded>(tile, keys, segment.begin, base, first, last);
      const auto token = [&](int k) {
        return std::int64_t{segment.begin} + base + tile.fixed.list[k];
      };
      const auto stage_keys = [&](int from, int buffer) {
        const int count = listed - from < kOthers ? listed - from : kOthers;
        stage(tile.K + buffer * kOthers * tile.dim.pitch, tile.dim, count, quads.dim, [&](int k) {
          return K + (token(from + k) * sizes.kv_heads + place.kv_head) * sizes.dim;
        });
        if (i >= kOthers) return;
        QueryFixed& of = tile.fixed;
        if (i >= count) {
          of.key[buffer][i] = KeySet::kForever;  // after every query
          of.death[buffer][i] = 0;
          return;
        }
        const std::int64_t j = token(from + i) - segment.begin;
        of.key[buffer][i] = static_cast<std::int32_t>(j);
        if (keys.death) {
          cuda::copy_async<4>(&of.death[buffer][i], &keys.death[segment.begin + j]);
        } else {
          const std::int64_t death = j + keys.window;
          of.death[buffer][i] =
              static_cast<std::int32_t>(death < KeySet::kForever ? death : KeySet::kForever);
        }
        if constexpr (kBanded) {
          cuda::copy_async<4>(&of.expire[buffer][i], &keys.expire[segment.begin + j]);
          cuda::copy_async<8>(&of.bin[buffer][i], &keys.key_bin[segment.begin + j]);
        }
      };
      const auto stage_values = [&](int from) {
        const int count = listed - from < kOthers ? listed - from : kOthers;
        stage(tile.V, tile.value, count, quads.value, [&](int k) {
          return V + (token(from + k) * sizes.kv_heads + place.kv_head) * sizes.value_dim;
        });
      };
      if (listed > 0) stage_keys(0, 0);
      cuda::commit_copies();
      for (int from = 0, buffer = 0; from < listed; from += kOthers, buffer ^= 1) {
        __syncthreads();  // nobody reads V and the other buffer any more
        stage_values(from);
        cuda::commit_copies();
        if (from + kOthers < listed) stage_keys(from + kOthers, buffer ^ 1);
        cuda::commit_copies();
        cuda::wait_for_copies<2>();
        __syncthreads();
        scores(buffer);
        cuda::wait_for_copies<1>();
        __syncthreads();
        values();
      }
    }
  }
}

/// Which of the lane's keys in the buffer the warp's rows see.
template <bool kBanded>
__device__ Seen seen_keys(const QueryTile& tile, int buffer) {
  Seen seen{};
  std::int32_t key[2], death[2], expire[2];
  std::int64_t bin[2];
  for (int k = 0; k < 2; ++k) {
    const int at = lane() + k * kWarp;
    key[k] = tile.fixed.key[buffer][at];
    death[k] = tile.fixed.death[buffer][at];
    if constexpr (kBanded) {
      expire[k] = tile.fixed.expire[buffer][at];
      bin[k] = tile.fixed.bin[buffer][at];
    }
  }
  for (int r = 0; r < kPerWarp; ++r) {
    const int row = warp() * kPerWarp + r;
    const std::int32_t i = tile.fixed.position[row];
    for (int k = 0; k < 2; ++k) {
      bool sees_it = i < death[k];
      if constexpr (kBanded)
        sees_it = sees_it || (i < expire[k] && tile.fixed.row_bin[row] == bin[k]);
      seen.rows[k] |= static_cast<unsigned>(key[k] <= i && sees_it) << r;
    }
  }
  seen.vote();
  return seen;
}

template <class T, bool kBanded>
__global__ void __launch_bounds__(kThreads, 3)
    forward_kernel(Sizes sizes, Keys keys, Quads quads, const T* Q, const T* K, const T* V, T* y,
                   Softmax softmax, Partial partial) {
  const QueryTile tile(cuda::dynamic_shared<char>(), sizes);
  const Place place(sizes);
  load_rows(tile, keys, place);
  stage(tile.Q, tile.dim, kRows, quads.dim,
        [&](int i) { return place.row(Q, sizes, sizes.dim, i); });
  const float* my_Q = tile.Q + warp() * kPerWarp * tile.dim.pitch;
  const Factors factors = tile.my_factors();
  const Spread<4> spread(tile.value);
  float result[kPerWarp][4] = {};
  float largest = -INFINITY, sum = 0;  // of row lane / 4
  int count = 0;                       // slots of the factors
  const auto scores = [&](int buffer) {
    const Seen seen = seen_keys<kBanded>(tile, buffer);
    count = seen.count;
    if (count == 0) return;
    float weight[2][kPerWarp], peak[kPerWarp];
    multiply<2>(my_Q, tile.K + buffer * kOthers * tile.dim.pitch, tile.dim, weight);
    for (int r = 0; r < kPerWarp; ++r) {
      for (int k = 0; k < 2; ++k) {
        weight[k][r] = seen.sees(k, r) ? weight[k][r] * sizes.scale : -INFINITY;
      }
      peak[r] = fmaxf(weight[0][r], weight[1][r]);
    }
    const float before = largest;
    largest = fmaxf(before, max_lanes(peak));
    const bool grows = largest > before;
    if (__any_sync(kAllLanes, grows)) {
      const float shrink = grows ? exponential(before - largest) : 1.0f;
      sum *= shrink;
      for (int r = 0; r < kPerWarp; ++r) {
        const float f = of_row(shrink, r);
        for (float& x : result[r]) x *= f;
      }
    }
    float added[kPerWarp];
    for (int r = 0; r < kPerWarp; ++r) {
      const float top = of_row(largest, r);
      for (int k = 0; k < 2; ++k) {
        weight[k][r] = seen.sees(k, r) ? exponential(weight[k][r] - top) : 0.0f;
      }
      added[r] = weight[0][r] + weight[1][r];
    }
    sum += sum_lanes(added);
    __syncwarp();  // the last tile's factors have been read
    seen.put(factors, weight, spread.groups());
    __syncwarp();
  };
  for_each_tile<kBanded>(tile, sizes, keys, place, quads, K, V, scores,
                         [&] { spread.accumulate(factors, count, tile.V, tile.value, result); });
  spread.join(result);
  const float inverse = sum > 0 ? 1 / sum : 0.0f;
  for (int r = 0; r < kPerWarp; ++r) {
    const int i = warp() * kPerWarp + r;
    const float f = of_row(inverse, r);
    for (float& x : result[r]) x *= f;
    if (i >= place.rows || !spread.writes(tile.value)) continue;
    if (partial.plain) {
      spread.store(result[r], place.row(partial.plain, sizes, sizes.value_dim, i), tile.value,
                   quads.value);
    } else {
      spread.store(result[r], place.row(y, sizes, sizes.value_dim, i), tile.value, quads.value);
    }
  }
  const int i = warp() * kPerWarp + lane() / 4;
  if (lane() % 4 == 0 && i < place.rows) {
    softmax.write(place.first_row + i, place.head, largest, sum);
  }
}

// dQ = scale (sum p dp K - delta sum p K).
template <class T, bool kBanded>
__global__ void __launch_bounds__(kThreads, 2)
    query_kernel(Sizes sizes, Keys keys, Quads quads, const T* dy, const T* Q, const T* K,
                 const T* V, Softmax softmax, T* dQ, float* delta, Partial partial) {
  const QueryTile tile(cuda::dynamic_shared<char>(), sizes);
  const Place place(sizes);
  load_rows(tile, keys, place);
  stage(tile.Q, tile.dim, kRows, quads.dim,
        [&](int i) { return place.row(Q, sizes, sizes.dim, i); });
  stage(tile.dy, tile.value, kRows, quads.value,
        [&](int i) { return place.row(dy, sizes, sizes.value_dim, i); });
  if (thread() < kRows) {
    const std::int64_t row = place.first_row + thread();
    const bool exists = thread() < place.rows;
    tile.fixed.largest[thread()] = exists ? softmax.largest(row, place.head) : 0.0f;
    tile.fixed.inverse[thread()] = exists ? softmax.inverse(row) : 0.0f;
  }
  const int first = warp() * kPerWarp;
  const float* my_Q = tile.Q + first * tile.dim.pitch;
  const float* my_dy = tile.dy + first * tile.value.pitch;
  const Factors factors = tile.my_factors();
  const Spread<2> spread(tile.dim);
  float moved[kPerWarp][2] = {}, plain[kPerWarp][2] = {}, mean[kPerWarp] = {};
  float weight[2][kPerWarp];
  Seen seen{};
  const float* my_K = nullptr;
  const auto scores = [&](int buffer) {
    seen = seen_keys<kBanded>(tile, buffer);
    if (seen.count == 0) return;
    my_K = tile.K + buffer * kOthers * tile.dim.pitch;
    multiply<2>(my_Q, my_K, tile.dim, weight);
    for (int r = 0; r < kPerWarp; ++r) {
      const float top = tile.fixed.largest[first + r], inverse = tile.fixed.inverse[first + r];
      for (int k = 0; k < 2; ++k) {
        const float p = exponential(weight[k][r] * sizes.scale - top) * inverse;
        weight[k][r] = seen.sees(k, r) ? p : 0.0f;
      }
    }
    __syncwarp();  // the last tile's factors have been read
    seen.put(factors, weight, spread.groups());
    __syncwarp();
    spread.accumulate(factors, seen.count, my_K, tile.dim, plain);
  };
  const auto values = [&] {
    if (seen.count == 0) return;
    float share[2][kPerWarp];
    multiply<2>(my_dy, tile.V, tile.value, share);
    for (int r = 0; r < kPerWarp; ++r) {
      for (int k = 0; k < 2; ++k) {
        share[k][r] = seen.sees(k, r) ? weight[k][r] * share[k][r] : 0.0f;
        mean[r] += share[k][r];
      }
    }
    __syncwarp();
    seen.put(factors, share, spread.groups());
    __syncwarp();
    spread.accumulate(factors, seen.count, my_K, tile.dim, moved);
  };
  for_each_tile<kBanded>(tile, sizes, keys, place, quads, K, V, scores, values);
  spread.join(moved);
  spread.join(plain);
  const float total = sum_lanes(mean);
  for (int r = 0; r < kPerWarp; ++r) {
    const int i = first + r;
    const float d = of_row(total, r);
    if (i >= place.rows || !spread.writes(tile.dim)) continue;
    if (partial.plain) {
      spread.store(moved[r], place.row(partial.moved, sizes, sizes.dim, i), tile.dim, false);
      spread.store(plain[r], place.row(partial.plain, sizes, sizes.dim, i), tile.dim, false);
      continue;
    }
    for (int c = 0; c < 2; ++c) moved[r][c] = sizes.scale * (moved[r][c] - d * plain[r][c]);
    spread.store(moved[r], place.row(dQ, sizes, sizes.dim, i), tile.dim, false);
  }
  const int i = first + lane() / 4;
  if (lane() % 4 == 0 && i < place.rows) {
    delta[(place.first_row + i) * sizes.heads + place.head] = total;
  }
}

}  // namespace hax::attention::lists
