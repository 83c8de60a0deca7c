// Blocks of 64 keys against the queries of their windows: dK and dV of full_attention.
#pragma once

#include "ops/sparse_attention/attention_lists.cuh"

namespace hax::attention::lists {

/// A block's shared memory; Q, dy, K and V follow.
struct alignas(16) KeyFixed {
  float factors[kWarps][kOthers * kPerWarp];
  int index[kWarps][kOthers];
  std::int32_t key[kRows];            // in the segment; kForever: not in it
  std::int32_t position[2][kOthers];  // of the queries
  float largest[2][kOthers], inverse[2][kOthers], delta[2][kOthers];
  Segment segment;
};
struct KeyTile {
  KeyFixed& fixed;
  Width dim, value;
  float *Q, *dy, *K, *V;  // [2][kOthers], [kOthers], [kRows], [kRows]

  __device__ KeyTile(char* memory, const Sizes& sizes)
      : fixed(*reinterpret_cast<KeyFixed*>(memory)), dim(sizes.dim), value(sizes.value_dim) {
    Q = reinterpret_cast<float*>(memory + sizeof(KeyFixed));
    dy = Q + 2 * kOthers * dim.pitch;
    K = dy + kOthers * value.pitch;
    V = K + kRows * dim.pitch;
  }
  static std::size_t bytes(const Sizes& sizes) {
    const auto dim_row = static_cast<std::size_t>(Width(sizes.dim).pitch);
    const auto value_row = static_cast<std::size_t>(Width(sizes.value_dim).pitch);
    return sizeof(KeyFixed) +
           sizeof(float) * ((2 * kOthers + kRows) * dim_row + (kOthers + kRows) * value_row);
  }
};

// blockIdx.y: key/value head. first_row [T + 1]: rows wanted before each token; null: all are.
template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    key_kernel(Sizes sizes, Keys keys, Quads quads, const std::int32_t* first_row, const T* dy,
               const T* Q, const T* K, const T* V, Softmax softmax, const float* delta, T* dK,
               T* dV) {
  const KeyTile tile(cuda::dynamic_shared<char>(), sizes);
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const int count = static_cast<int>(block + kRows < sizes.tokens ? kRows : sizes.tokens - block);
  const int kv_head = static_cast<int>(blockIdx.y), i = thread();
  const auto key_row = [&](auto* table, int columns, int k) {
    return k < count ? table + ((block + k) * sizes.kv_heads + kv_head) * columns : nullptr;
  };
  const auto row_at = [&](std::int64_t token) {
    return first_row ? std::int64_t{first_row[token]} : token;
  };
  stage(tile.K, tile.dim, kRows, quads.dim, [&](int k) { return key_row(K, sizes.dim, k); });
  stage(tile.V, tile.value, kRows, quads.value,
        [&](int k) { return key_row(V, sizes.value_dim, k); });
  const int first = warp() * kPerWarp;
  const float *my_K = tile.K + first * tile.dim.pitch, *my_V = tile.V + first * tile.value.pitch;
  const Factors factors{tile.fixed.factors[warp()], tile.fixed.index[warp()]};
  const Spread<2> narrow(tile.dim);
  const Spread<4> wide(tile.value);
  float dkey[kPerWarp][2] = {}, dvalue[kPerWarp][4] = {};
  for (int done = 0; done < count;) {
    find_segment(tile.fixed.segment, keys, block + done);
    const Segment segment = tile.fixed.segment;
    if (segment.begin < 0) break;  // of no sequence; nor are the keys that follow
    const int past = static_cast<int>(block + count < segment.end ? count : segment.end - block);
    const auto from = static_cast<std::int32_t>(block + done - segment.begin);
    const auto last = static_cast<std::int32_t>(block + past - 1 - segment.begin);
    if (i < kRows) tile.fixed.key[i] = done <= i && i < past ? from + i - done : KeySet::kForever;
    done = past;
    const std::int64_t until = segment.begin + last + keys.window;
    const std::int64_t low = row_at(segment.begin + from);
    const std::int64_t high = row_at(until < segment.end ? until : segment.end);
    const std::int64_t tiles = cuda::ceil_div(high - low, kOthers);
    for (int h = 0; h < sizes.group(); ++h) {
      const int head = kv_head * sizes.group() + h;
      const auto rows_of = [&](std::int64_t t) {
        const std::int64_t left = high - low - t * kOthers;
        return static_cast<int>(left < kOthers ? left : kOthers);
      };
      const auto query_row = [&](const T* table, int columns, std::int64_t t, int k) {
        return table + ((low + t * kOthers + k) * sizes.heads + head) * columns;
      };
      const auto stage_queries = [&](std::int64_t t, int buffer) {
        const int rows = rows_of(t);
        stage(tile.Q + buffer * kOthers * tile.dim.pitch, tile.dim, rows, quads.dim,
              [&](int k) { return query_row(Q, sizes.dim, t, k); });
        if (i >= kOthers) return;
        KeyFixed& of = tile.fixed;
        const std::int64_t row = low + t * kOthers + i;
        const bool exists = i < rows;
        of.position[buffer][i] =
            exists ? static_cast<std::int32_t>(keys.token_of(row) - segment.begin) : -1;
        of.largest[buffer][i] = exists ? softmax.largest(row, head) : 0.0f;
        of.inverse[buffer][i] = exists ? softmax.inverse(row) : 0.0f;
        of.delta[buffer][i] = exists ? delta[row * sizes.heads + head] : 0.0f;
      };
      __syncthreads();  // of the head before
      if (tiles > 0) stage_queries(0, 0);
      cuda::commit_copies();
      for (std::int64_t t = 0; t < tiles; ++t) {
        const int buffer = static_cast<int>(t & 1);
        __syncthreads();  // nobody reads dy and the other buffer any more
        stage(tile.dy, tile.value, rows_of(t), quads.value,
              [&](int k) { return query_row(dy, sizes.value_dim, t, k); });
        cuda::commit_copies();
        if (t + 1 < tiles) stage_queries(t + 1, buffer ^ 1);
        cuda::commit_copies();
        cuda::wait_for_copies<2>();
        __syncthreads();
        Seen seen{};
        float weight[2][kPerWarp], share[2][kPerWarp];
        const float* queries = tile.Q + buffer * kOthers * tile.dim.pitch;
        for (int k = 0; k < 2; ++k) {
          const std::int32_t position = tile.fixed.position[buffer][lane() + k * kWarp];
          for (int r = 0; r < kPerWarp; ++r) {
            const std::int32_t key = tile.fixed.key[first + r];
            const bool sees_it = key <= position && position - key < keys.window;
            seen.rows[k] |= static_cast<unsigned>(sees_it) << r;
          }
        }
        seen.vote();
        if (seen.count > 0) {
          multiply<2>(my_K, queries, tile.dim, weight);
          for (int k = 0; k < 2; ++k) {
            const int at = lane() + k * kWarp;
            const float top = tile.fixed.largest[buffer][at];
            const float inverse = tile.fixed.inverse[buffer][at];
            for (int r = 0; r < kPerWarp; ++r) {
              const float p = exponential(weight[k][r] * sizes.scale - top) * inverse;
              weight[k][r] = seen.sees(k, r) ? p : 0.0f;
            }
          }
        }
        cuda::wait_for_copies<1>();
        __syncthreads();
        if (seen.count == 0) continue;
        multiply<2>(my_V, tile.dy, tile.value, share);
        for (int k = 0; k < 2; ++k) {
          const float mean = tile.fixed.delta[buffer][lane() + k * kWarp];
          for (int r = 0; r < kPerWarp; ++r) {
            const float dscore = weight[k][r] * (share[k][r] - mean) * sizes.scale;
            share[k][r] = seen.sees(k, r) ? dscore : 0.0f;
          }
        }
        __syncwarp();  // the last tile's factors have been read
        seen.put(factors, weight, wide.groups());
        __syncwarp();
        wide.accumulate(factors, seen.count, tile.dy, tile.value, dvalue);
        __syncwarp();
        seen.put(factors, share, narrow.groups());
        __syncwarp();
        narrow.accumulate(factors, seen.count, queries, tile.dim, dkey);
      }
    }
  }
  wide.join(dvalue);
  narrow.join(dkey);
  for (int r = 0; r < kPerWarp; ++r) {
    const int k = first + r;
    if (k >= count) continue;
    if (wide.writes(tile.value)) {
      wide.store(dvalue[r], key_row(dV, sizes.value_dim, k), tile.value, quads.value);
    }
    if (narrow.writes(tile.dim)) {
      narrow.store(dkey[r], key_row(dK, sizes.dim, k), tile.dim, false);
    }
  }
}

}  // namespace hax::attention::lists
