// What the kernels are made of in which a block has 64 rows and a warp 8 of them
// (attention_list_queries.cuh, attention_list_keys.cuh): rows in shared memory, products, sums over
// a warp. Page: sparse_attention.md, "On CUDA"
#pragma once

#include <numbers>

#include "engine/cuda/async_copy.cuh"
#include "ops/sparse_attention/attention_keys.cuh"

namespace hax::attention::lists {

inline constexpr int kThreads = 256, kWarps = kThreads / kWarp;
/// Rows of a block and of a warp, and what they meet at once: two others a lane.
inline constexpr int kRows = 64, kPerWarp = kRows / kWarps, kOthers = 2 * kWarp;
/// Wider rows are left to attention_tiles.cuh.
inline constexpr int kMostDim = 64, kMostValueDim = 128;
static_assert(kPerWarp == 8 && kRows == kOthers);

__device__ inline int thread() { return static_cast<int>(threadIdx.x); }
__device__ inline int lane() { return thread() % kWarp; }
__device__ inline int warp() { return thread() / kWarp; }

/// Rows of a table in shared memory: `quads` float4 of numbers, zeros where the table has no
/// column, and a pad such that 8 lanes that read a row each meet 32 banks.
struct Width {
  int columns, quads, pitch;
  int lanes_log2;  ///< lanes that 2^lanes_log2 * 4 columns take: at least quads

  __host__ __device__ explicit Width(int columns_)
      : columns(columns_), quads((columns_ + 3) / 4), pitch(4 * (quads | 1)), lanes_log2(0) {
    while ((1 << lanes_log2) < quads) ++lanes_log2;
  }
};

/// Four neighbouring numbers to shared memory. `quad`: the table's rows begin at multiples of 16
/// bytes and have whole quads. Complete after wait_for_copies and a barrier.
template <class T>
__device__ void stage_quad(float* to, const T* row, int column, int columns, bool quad) {
  if constexpr (std::is_same_v<T, float>) {
    if (quad) return cuda::copy_async<16>(to, row + column);
    for (int i = 0; i < 4; ++i) {
      if (column + i < columns) {
        cuda::copy_async<4>(to + i, row + column + i);
      } else {
        to[i] = 0;
      }
    }
  } else {
    for (int i = 0; i < 4; ++i) {
      to[i] = column + i < columns ? cuda::to_float(row[column + i]) : 0.0f;
    }
  }
}

/// Rows row(0) .. row(count - 1) to shared memory; row(i) points to them, or is null for zeros. All
/// threads call it.
template <class Row>
__device__ void stage(float* to, const Width& width, int count, bool quad, Row row) {
  const int at_once = kWarp >> width.lanes_log2, quads = width.quads;
  const int column = lane() & ((1 << width.lanes_log2) - 1);
  if (column >= quads) return;
  for (int i = warp() * at_once + (lane() >> width.lanes_log2); i < count; i += kWarps * at_once) {
    const auto* from = row(i);
    float* target = to + i * width.pitch + 4 * column;
    if (from) {
      stage_quad(target, from, 4 * column, width.columns, quad);
    } else {
      *reinterpret_cast<float4*>(target) = make_float4(0, 0, 0, 0);
    }
  }
}

/// out[k][r] = the warp's row r times other k of the lane, k < kCount: the others `lane` and
/// `lane + 32`. The sum runs through the columns in order, so a pair has the same bits wherever it
/// is computed.
template <int kCount>
__device__ __forceinline__ void multiply(const float* rows, const float* others, const Width& width,
                                         float (&out)[2][kPerWarp]) {
  for (int k = 0; k < kCount; ++k) {
    for (float& x : out[k]) x = 0;
  }
  for (int q = 0; q < width.quads; ++q) {
    float4 other[kCount];
    for (int k = 0; k < kCount; ++k) {
      other[k] =
          *reinterpret_cast<const float4*>(others + (lane() + k * kWarp) * width.pitch + 4 * q);
    }
    HAX_UNROLL
    for (int r = 0; r < kPerWarp; ++r) {
      const float4 row = *reinterpret_cast<const float4*>(rows + r * width.pitch + 4 * q);
      for (int k = 0; k < kCount; ++k) {
        out[k][r] += row.x * other[k].x;
        out[k][r] += row.y * other[k].y;
        out[k][r] += row.z * other[k].z;
        out[k][r] += row.w * other[k].w;
      }
    }
  }
}

/// Lane l gets the join over all lanes of x[l / 4].
template <class F>
__device__ float join_lanes(const float (&x)[kPerWarp], F join) {
  const bool upper4 = (lane() & 16) != 0, upper2 = (lane() & 8) != 0, upper1 = (lane() & 4) != 0;
  float half[4], quarter[2];
  for (int i = 0; i < 4; ++i) {
    const float send = upper4 ? x[i] : x[i + 4], keep = upper4 ? x[i + 4] : x[i];
    half[i] = join(keep, __shfl_xor_sync(kAllLanes, send, 16));
  }
  for (int i = 0; i < 2; ++i) {
    const float send = upper2 ? half[i] : half[i + 2], keep = upper2 ? half[i + 2] : half[i];
    quarter[i] = join(keep, __shfl_xor_sync(kAllLanes, send, 8));
  }
  const float send = upper1 ? quarter[0] : quarter[1], keep = upper1 ? quarter[1] : quarter[0];
  float one = join(keep, __shfl_xor_sync(kAllLanes, send, 4));
  one = join(one, __shfl_xor_sync(kAllLanes, one, 2));
  return join(one, __shfl_xor_sync(kAllLanes, one, 1));
}
__device__ inline float sum_lanes(const float (&x)[kPerWarp]) {
  return join_lanes(x, [](float a, float b) { return a + b; });
}
__device__ inline float max_lanes(const float (&x)[kPerWarp]) {
  return join_lanes(x, [](float a, float b) { return fmaxf(a, b); });
}
/// Of a number that lane l holds for row l / 4, that of row r.
__device__ inline float of_row(float value, int r) { return __shfl_sync(kAllLanes, value, 4 * r); }

/// A warp's factors of the others that any of its rows sees, without gaps: the weight of other
/// index[slot] for each row.
struct Factors {
  float* at;   // [kOthers][kPerWarp]
  int* index;  // [kOthers]
};

/// Which of the lane's two others each of the warp's rows sees, as bits, and the slots that these
/// others take.
struct Seen {
  unsigned rows[2];
  unsigned others[2];  // by lane: seen by any row
  int count;

  __device__ void vote() {
    for (int k = 0; k < 2; ++k) others[k] = __ballot_sync(kAllLanes, rows[k] != 0);
    count = __popc(others[0]) + __popc(others[1]);
  }
  __device__ bool sees(int k, int r) const { return (rows[k] >> r & 1) != 0; }

  /// Writes the factors of the lane's others to their slots, and zeros to fill a multiple of `all`
  /// slots, a power of two.
  __device__ void put(const Factors& to, const float (&factor)[2][kPerWarp], int all) const {
    const unsigned before = (1u << lane()) - 1;
    for (int k = 0; k < 2; ++k) {
      if (rows[k] == 0) continue;
      const int slot = (k == 0 ? 0 : __popc(others[0])) + __popc(others[k] & before);
      write(to, slot, lane() + k * kWarp, factor[k]);
    }
    const int pad = count + lane();
    if (pad < (count + all - 1) / all * all) {
      const float zeros[kPerWarp] = {};
      const int any = others[0] != 0 ? __ffs(static_cast<int>(others[0])) - 1
                                     : kWarp + __ffs(static_cast<int>(others[1])) - 1;
      write(to, pad, any, zeros);
    }
  }

 private:
  __device__ static void write(const Factors& to, int slot, int other,
                               const float (&factor)[kPerWarp]) {
    to.index[slot] = other;
    auto* target = reinterpret_cast<float4*>(to.at + slot * kPerWarp);
    target[0] = make_float4(factor[0], factor[1], factor[2], factor[3]);
    target[1] = make_float4(factor[4], factor[5], factor[6], factor[7]);
  }
};

/// How a warp spreads over a row of a result, with kColumns neighbouring columns a lane: 2^log2
/// lanes side by side, and as many such groups as there are, which take every other slot.
template <int kColumns>
struct Spread {
  int log2, group, column;

  __device__ explicit Spread(const Width& width) : log2(0) {
    while ((kColumns << log2) < 4 * width.quads) ++log2;
    group = lane() >> log2;
    column = (lane() & ((1 << log2) - 1)) * kColumns;
    if (column >= 4 * width.quads) column = 4 * width.quads - kColumns;  // written by nobody
  }
  __device__ int groups() const { return kWarp >> log2; }
  __device__ bool writes(const Width& width) const {
    return group == 0 && lane() * kColumns < width.columns;
  }

  /// sums[r] += factor times row of the table, over the slots.
  __device__ __forceinline__ void accumulate(const Factors& factors, int count, const float* table,
                                             const Width& width,
                                             float (&sums)[kPerWarp][kColumns]) const {
    HAX_UNROLL_BY(4)
    for (int slot = group; slot < count; slot += groups()) {
      const float* from = table + factors.index[slot] * width.pitch + column;
      float x[kColumns];
      if constexpr (kColumns == 4) {
        const float4 four = *reinterpret_cast<const float4*>(from);
        x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
      } else {
        const float2 two = *reinterpret_cast<const float2*>(from);
        x[0] = two.x, x[1] = two.y;
      }
      const auto* factor = reinterpret_cast<const float4*>(factors.at + slot * kPerWarp);
      const float4 low = factor[0], high = factor[1];
      const float f[kPerWarp] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      for (int r = 0; r < kPerWarp; ++r) {
        for (int c = 0; c < kColumns; ++c) sums[r][c] += f[r] * x[c];
      }
    }
  }
  /// Adds up the groups: then each has the whole.
  __device__ void join(float (&sums)[kPerWarp][kColumns]) const {
    for (int distance = 1 << log2; distance < kWarp; distance *= 2) {
      for (auto& row : sums) {
        for (float& x : row) x += __shfl_xor_sync(kAllLanes, x, distance);
      }
    }
  }
  template <class T>
  __device__ void store(const float (&x)[kColumns], T* row, const Width& width, bool quad) const {
    if constexpr (std::is_same_v<T, float> && kColumns == 4) {
      if (quad) {
        *reinterpret_cast<float4*>(row + column) = make_float4(x[0], x[1], x[2], x[3]);
        return;
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      if (column + c < width.columns) row[column + c] = cuda::from_float<T>(x[c]);
    }
  }
};

/// exp(x), x <= 0
__device__ inline float exponential(float x) {
  return cuda::fast_exp2(x * std::numbers::log2e_v<float>);
}

/// The sequence of a token, in shared memory; begin -1: it belongs to none.
struct Segment {
  std::int32_t begin, end;
};
/// All threads call it; it begins and ends with a barrier.
__device__ inline void find_segment(Segment& found, const Keys& keys, std::int64_t token) {
  __syncthreads();
  if (thread() == 0) found = {-1, -1};
  __syncthreads();
  for (std::int64_t s = thread(); s < keys.sequences; s += kThreads) {
    const std::int32_t begin = keys.offsets[s], end = keys.offsets[s + 1];
    if (begin <= token && token < end) found = {begin, end};
  }
  __syncthreads();
}

/// Whether some bin may be among those put in: false for most that are not.
struct Bins {
  static constexpr int kWords = 32;
  unsigned words[kWords];

  __device__ static unsigned hash(std::int64_t bin) {
    const auto bits = static_cast<std::uint64_t>(bin);
    return (static_cast<unsigned>(bits ^ bits >> 32) * 0x9E3779B1u) >> 22;
  }
  __device__ void put(std::int64_t bin) {
    const unsigned at = hash(bin);
    atomicOr(&words[at / 32], 1u << (at % 32));
  }
  __device__ bool may_have(std::int64_t bin) const {
    const unsigned at = hash(bin);
    return (words[at / 32] >> (at % 32) & 1) != 0;
  }
};

/// How the tables lie in memory: see stage_quad.
struct Quads {
  bool dim, value;
};

/// On the host: whether rows of `columns` numbers begin at multiples of 16 bytes and have whole
/// quads.
inline bool in_quads(const void* table, std::int64_t columns) {
  return cuda::starts_at_quad(table) && columns % 4 == 0;
}

}  // namespace hax::attention::lists
