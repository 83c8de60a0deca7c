// Attention in dense tiles: what the kernels over tiles of queries (attention_query_tiles.cuh) and
// of keys (attention_key_tiles.cuh) are made of. A block holds 64 rows against 32 others, in shared
// memory, and a thread 4 x 2 of their products.
#pragma once

#include "ops/sparse_attention/attention_keys.cuh"

namespace hax::attention::tiles {

inline constexpr int kRows = 64, kOthers = 32, kThreads = 256;
inline constexpr int kSide = 16;  // threads are 16 x 16
/// On one multiprocessor: leaves 128 registers to a thread.
inline constexpr int kBlocksAtOnce = 2;
inline constexpr int kPerRow = kRows / kSide;      // 4 rows a thread
inline constexpr int kPerOther = kOthers / kSide;  // 2 others a thread
inline constexpr int kPerWidth = kColumns / kSide;
inline constexpr int kDepth = 16;  // columns of Q, K, V and dy that a product loads at once
inline constexpr int kPitch = kRows + 4;

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }
// The first of the thread's rows; of its others.
__device__ inline int my_row() { return thread() / kSide * kPerRow; }
__device__ inline int my_other() { return thread() % kSide * kPerOther; }

/// 16-byte loads of 4 rows at a time want the alignment.
struct alignas(16) Products {
  float rows[kDepth][kPitch];
  float others[kDepth][kOthers + 4];
};
/// Factors [other, row], and rows of a table that they weigh.
struct alignas(16) Factors {
  float at[kOthers][kPitch];

  /// The thread's 4 x 2.
  __device__ void put(const float (&factor)[kPerRow][kPerOther]) {
    for (int c = 0; c < kPerOther; ++c) {
      *reinterpret_cast<float4*>(&at[my_other() + c][my_row()]) =
          make_float4(factor[0][c], factor[1][c], factor[2][c], factor[3][c]);
    }
  }
};
struct alignas(16) Table {
  float at[kOthers][kColumns];
};

/// out = rows . others over `depth` columns; row(i) and other(i) point to them or are null, for
/// zeros. All threads call it; it ends with a barrier.
template <class Row, class Other>
__device__ void multiply(Products& shared, int depth, Row row, Other other,
                         float (&out)[kPerRow][kPerOther]) {
  for (auto& line : out) line[0] = line[1] = 0;
  const int column = thread() % kDepth;
  for (int from = 0; from < depth; from += kDepth) {
    const bool inside = from + column < depth;
    for (int i = thread() / kDepth; i < kRows; i += kThreads / kDepth) {
      const auto* source = row(i);
      shared.rows[column][i] = inside && source ? cuda::to_float(source[from + column]) : 0.0f;
    }
    for (int i = thread() / kDepth; i < kOthers; i += kThreads / kDepth) {
      const auto* source = other(i);
      shared.others[column][i] = inside && source ? cuda::to_float(source[from + column]) : 0.0f;
    }
    __syncthreads();
    for (int n = 0; n < kDepth; ++n) {
      const float4 a = *reinterpret_cast<const float4*>(&shared.rows[n][my_row()]);
      const float2 b = *reinterpret_cast<const float2*>(&shared.others[n][my_other()]);
      out[0][0] += a.x * b.x;
      out[0][1] += a.x * b.y;
      out[1][0] += a.y * b.x;
      out[1][1] += a.y * b.y;
      out[2][0] += a.z * b.x;
      out[2][1] += a.z * b.y;
      out[3][0] += a.w * b.x;
      out[3][1] += a.w * b.y;
    }
    __syncthreads();
  }
}

/// Columns [first, first + kColumns) of the others' rows; zeros beyond `width` and for null.
template <class Other>
__device__ void load(Table& table, int first, int width, Other other) {
  for (int i = thread(); i < kOthers * kColumns; i += kThreads) {
    const int column = first + i % kColumns;
    if (column >= (width + kSide - 1) / kSide * kSide) continue;
    const auto* source = other(i / kColumns);
    table.at[i / kColumns][i % kColumns] =
        source && column < width ? cuda::to_float(source[column]) : 0.0f;
  }
}

/// sums[r][c] += sum over the others of factor times column 16 c + (thread % 16) of the table;
/// `width` columns of the table count.
__device__ inline void accumulate(const Factors& factors, const Table& table, int width,
                                  float (&sums)[kPerRow][kPerWidth]) {
  const int column = thread() % kSide;
  for (int k = 0; k < kOthers; ++k) {
    const float4 f = *reinterpret_cast<const float4*>(&factors.at[k][my_row()]);
    for (int c = 0; c < kPerWidth; ++c) {
      if (c * kSide >= width) continue;  // the same for all threads
      const float x = table.at[k][c * kSide + column];
      sums[0][c] += f.x * x;
      sums[1][c] += f.y * x;
      sums[2][c] += f.z * x;
      sums[3][c] += f.w * x;
    }
  }
}

/// Writes the thread's sums as columns [first, ...) of its rows; row(i) as above.
template <class T, class Row>
__device__ void store(const float (&sums)[kPerRow][kPerWidth], int first, int width, Row row) {
  for (int r = 0; r < kPerRow; ++r) {
    T* target = row(my_row() + r);
    if (!target) continue;
    for (int c = 0; c < kPerWidth; ++c) {
      const int column = first + c * kSide + thread() % kSide;
      if (column < width) target[column] = cuda::from_float<T>(sums[r][c]);
    }
  }
}

/// Sum, or maximum, over the 16 threads that share rows.
template <class F>
__device__ float over_others(float value, F join) {
  for (int distance = kSide / 2; distance > 0; distance /= 2) {
    value = join(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}
__device__ inline float sum_over_others(float value) {
  return over_others(value, [](float a, float b) { return a + b; });
}
__device__ inline float max_over_others(float value) {
  return over_others(value, [](float a, float b) { return fmaxf(a, b); });
}

inline dim3 grid(std::int64_t items, int heads, int width) {
  const std::int64_t chunks = width > 0 ? cuda::ceil_div(width, kColumns) : 1;
  return dim3(cuda::blocks(cuda::ceil_div(items, kRows)), cuda::blocks(heads * chunks));
}

}  // namespace hax::attention::tiles
