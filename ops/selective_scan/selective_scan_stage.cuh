// Chunks of tokens on their way through shared memory: while one is computed with, the next one is
// copied. Page: selective_scan.md, "On CUDA"
#pragma once

#include "engine/cuda/async_copy.cuh"
#include "ops/selective_scan/selective_scan_pieces.cuh"

namespace hax::scan_cuda {

/// A chunk in shared memory. What does not exist, or is not wanted, is zero: such tokens change no
/// state.
template <int kTokens>
struct Chunk {
  float *u, *dt, *dy;       // [kTokens, channels]
  float *B, *C;             // [kTokens, lanes * 4]
  const std::int32_t* row;  // [kTokens], -1: not wanted
};

/// kRows: with C and the rows; kDy: with dy too.
template <class T, int kTokens, bool kRows, bool kDy>
class Stage {
 public:
  static_assert(kThreads == 1 << 7 && kStates == 1 << 2 && kTokens % 4 == 0);

  static constexpr std::size_t bytes(int lane_bits) {
    return sizeof(float) * 2 * floats(lane_bits) + sizeof(std::int32_t) * 3 * kTokens;
  }
  __device__ Stage(const Inputs<T>& in, const T* from_dy, float* memory)
      : in_(in),
        dy_(from_dy),
        memory_(memory),
        rows_(reinterpret_cast<std::int32_t*>(memory + 2 * floats(in.lane_bits))) {}

  /// begin_of(k): first token of the k-th chunk; of the sequence's piece up to `end`. All threads
  /// call it once, before next().
  template <class Begin>
  __device__ void start(std::int64_t chunks, std::int64_t end, Begin begin_of) {
    if (chunks == 0) return;
    if (kRows) {
      copy_rows(begin_of(0), end, 0);
      cuda::commit_copies();
      cuda::wait_for_copies<0>();
      __syncthreads();
    }
    copy(0, chunks, end, begin_of);
  }
  /// The k-th chunk, while the one after it is copied. All threads call it, k = 0, 1, ..; it has a
  /// barrier.
  template <class Begin>
  __device__ Chunk<kTokens> next(std::int64_t k, std::int64_t chunks, std::int64_t end,
                                 Begin begin_of) {
    cuda::wait_for_copies<0>();
    __syncthreads();  // the chunk is there, and nobody reads the one before
    if (k + 1 < chunks) copy(k + 1, chunks, end, begin_of);
    return chunk(k);
  }

 private:
  static constexpr __host__ __device__ int floats(int lane_bits) {
    const int channels = kThreads >> lane_bits, width = kStates << lane_bits;
    return kTokens * ((kDy ? 3 : 2) * channels + (kRows ? 2 : 1) * width);
  }
  __device__ Chunk<kTokens> chunk(std::int64_t k) const {
    const int channels = kThreads >> in_.lane_bits, width = kStates << in_.lane_bits;
    Chunk<kTokens> c{};
    c.u = memory_ + (k & 1) * floats(in_.lane_bits);
    c.dt = c.u + kTokens * channels;
    c.B = c.dt + kTokens * channels;
    c.C = c.B + kTokens * width;
    c.dy = c.C + (kRows ? kTokens * width : 0);
    c.row = rows_ + k % 3 * kTokens;
    return c;
  }
  __device__ void copy_rows(std::int64_t begin, std::int64_t end, std::int64_t k) const {
    std::int32_t* to = rows_ + k % 3 * kTokens;
    for (int i = static_cast<int>(threadIdx.x); i < kTokens; i += kThreads) {
      const std::int64_t t = begin + i;
      if (t >= end) {
        to[i] = -1;
      } else if (in_.row_of == nullptr) {
        to[i] = static_cast<std::int32_t>(t);
      } else {
        cuda::copy_async<4>(to + i, in_.row_of + t);
      }
    }
  }
  template <class Begin>
  __device__ void copy(std::int64_t k, std::int64_t chunks, std::int64_t end,
                       Begin begin_of) const {
    const Chunk<kTokens> to = chunk(k);
    const std::int64_t begin = begin_of(k);
    const int channel_bits = 7 - in_.lane_bits, width_bits = 2 + in_.lane_bits;
    const std::int64_t first_channel = static_cast<std::int64_t>(blockIdx.y) << channel_bits;
    const int tokens = static_cast<int>(end - begin < kTokens ? end - begin : kTokens);
    const auto token = [&](int i) { return i < tokens ? begin + i : -1; };
    const auto row = [&](int i) { return std::int64_t{to.row[i]}; };
    table(to.u, in_.u, channel_bits, in_.dim, first_channel, token);
    table(to.dt, in_.dt, channel_bits, in_.dim, first_channel, token);
    table(to.B, in_.B, width_bits, in_.state, in_.first_state, token);
    if constexpr (kRows) table(to.C, in_.C, width_bits, in_.state, in_.first_state, row);
    if constexpr (kDy) table(to.dy, dy_, channel_bits, in_.dim, first_channel, row);
    if (kRows && k + 1 < chunks) copy_rows(begin_of(k + 1), end, k + 1);
    cuda::commit_copies();
  }
  // 2^bits columns, from `first` on, of rows [.., columns] of `from`, which may be null.
  template <class Row>
  __device__ void table(float* to, const T* from, int bits, std::int64_t columns,
                        std::int64_t first, Row row) const {
    for (int i = static_cast<int>(threadIdx.x); i < kTokens << (bits - 2); i += kThreads) {
      const std::int64_t at = from == nullptr ? -1 : row(i >> (bits - 2));
      const std::int64_t column = first + 4 * (i & ((1 << (bits - 2)) - 1));
      const std::int64_t left = at < 0 ? 0 : columns - column;
      const T* source = from + at * columns + column;
      float* target = to + 4 * i;
      if constexpr (std::is_same_v<T, float>) {
        if (in_.in_quads && left > 0) {
          cuda::copy_async<16>(target, source);
          continue;
        }
      }
      for (int c = 0; c < 4; ++c) {
        if (c >= left) {
          target[c] = 0;
        } else if constexpr (std::is_same_v<T, float>) {
          cuda::copy_async<4>(target + c, source + c);
        } else {
          target[c] = cuda::to_float(source[c]);
        }
      }
    }
  }

  const Inputs<T>& in_;
  const T* dy_;
  float* memory_;
  std::int32_t* rows_;
};

}  // namespace hax::scan_cuda
