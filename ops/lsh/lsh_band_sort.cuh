// Sorting the positions of a sequence by bin on CUDA, a byte of the codes a pass, least significant
// first: what a block does. Page: lsh.md
#pragma once

#include "engine/cuda/pieces.cuh"

namespace hax::lsh {

using cuda::kAllLanes;
using cuda::kWarp;

inline constexpr int kThreads = 512, kWarps = kThreads / kWarp;
inline constexpr int kBits = 8, kDigits = 1 << kBits;
inline constexpr int kMostPasses = 64 / kBits;

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

/// The smallest code of a sequence, and how far the largest is from it.
struct Span {
  std::int64_t low;
  std::uint64_t width;

  /// As many as the span needs; at least one, which writes the positions down.
  __device__ int passes() const {
    const int bits = width == 0 ? 1 : 64 - __clzll(static_cast<long long>(width));
    return (bits + kBits - 1) / kBits;
  }
};

/// Of codes low(i)..high(i) for i below `count`, which is at least 1. All threads of the block call
/// it and get it.
template <class Low, class High>
__device__ Span span_of(std::int64_t count, Low low_of, High high_of) {
  HAX_SHARED(lows, std::int64_t[kWarps]);
  HAX_SHARED(highs, std::int64_t[kWarps]);
  std::int64_t low = low_of(0), high = high_of(0);
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    const std::int64_t other_low = low_of(i), other_high = high_of(i);
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const std::int64_t other_low = __shfl_xor_sync(kAllLanes, low, distance);
    const std::int64_t other_high = __shfl_xor_sync(kAllLanes, high, distance);
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
  }
  if (lane() == 0) {
    lows[warp()] = low;
    highs[warp()] = high;
  }
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    low = lows[w] < low ? lows[w] : low;
    high = highs[w] > high ? highs[w] : high;
  }
  return {low, static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low)};
}

/// One pass over a sequence: reads positions in the order that the last pass left, writes them in
/// that of one more byte.
struct Pass {
  const std::int64_t* bin;   // of position 0
  const std::int32_t* from;  // null: in order of time
  std::int32_t* to;
  std::int64_t low;
  int shift;

  /// The last of span.passes() writes `order`.
  __device__ Pass(const std::int64_t* bins, std::int32_t* order, std::int32_t* spare,
                  std::int64_t begin, const Span& span, int pass)
      : bin(bins + begin), low(span.low), shift(pass * kBits) {
    const bool last = (span.passes() - pass) % 2 == 1;
    from = pass == 0 ? nullptr : (last ? spare : order) + begin;
    to = (last ? order : spare) + begin;
  }
  __device__ std::int32_t element(std::int64_t p) const {
    return from ? from[p] : static_cast<std::int32_t>(p);
  }
  __device__ int digit(std::int32_t j) const {
    const auto code = static_cast<std::uint64_t>(bin[j]) - static_cast<std::uint64_t>(low);
    return static_cast<int>(code >> shift & (kDigits - 1));
  }
};

/// place [kDigits]: how many of the elements first..last have each digit. Ends with a barrier.
__device__ inline void count_digits(const Pass& pass, std::int64_t first, std::int64_t last,
                                    int* place) {
  if (threadIdx.x < kDigits) place[threadIdx.x] = 0;
  __syncthreads();
  for (std::int64_t p = first + threadIdx.x; p < last; p += kThreads) {
    atomicAdd(&place[pass.digit(pass.element(p))], 1);
  }
  __syncthreads();
}

/// numbers [kDigits], in shared memory, become the sums of those before each. Ends with a barrier.
__device__ inline void sum_before(int* numbers) {
  constexpr int kEach = kDigits / kWarp;
  if (warp() == 0) {
    int* mine = numbers + lane() * kEach;
    int sum = 0;
    for (int d = 0; d < kEach; ++d) sum += mine[d];
    int before = sum;  // up to and with this lane
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = __shfl_up_sync(kAllLanes, before, static_cast<unsigned>(distance));
      if (lane() >= distance) before += other;
    }
    before -= sum;
    for (int d = 0; d < kEach; ++d) {
      const int number = mine[d];
      mine[d] = before;
      before += number;
    }
  }
  __syncthreads();
}

/// Lanes whose digit is this lane's; `valid` lanes alone have one.
__device__ inline unsigned peers_of(int digit, bool valid) {
  unsigned peers = __ballot_sync(kAllLanes, valid ? 1 : 0);
  for (int bit = 0; bit < kBits; ++bit) {
    const int mine = digit >> bit & 1;
    const unsigned set = __ballot_sync(kAllLanes, mine);
    peers &= mine != 0 ? set : ~set;
  }
  return peers;
}

/// Writes the elements first..last, 512 at a time, to where `place` says their digits continue, and
/// moves it on. An element's place is there, plus those of its digit in earlier warps, plus those
/// in earlier lanes. Ends with a barrier.
__device__ inline void scatter(const Pass& pass, std::int64_t first, std::int64_t last,
                               int* place) {
  HAX_SHARED(counts, int[kWarps][kDigits]);
  const int thread = static_cast<int>(threadIdx.x);
  for (; first < last; first += kThreads) {
    for (int w = 0; w < kWarps; w += kThreads / kDigits) {
      counts[w + thread / kDigits][thread % kDigits] = 0;
    }
    __syncthreads();
    const bool valid = first + thread < last;
    const std::int32_t j = valid ? pass.element(first + thread) : 0;
    const int digit = valid ? pass.digit(j) : 0;
    const unsigned peers = peers_of(digit, valid);
    const int before = __popc(peers & ((1u << lane()) - 1));
    if (valid && before == 0) counts[warp()][digit] = __popc(peers);
    __syncthreads();
    if (thread < kDigits) {
      int next = place[thread];
      for (int w = 0; w < kWarps; ++w) {
        const int count = counts[w][thread];
        counts[w][thread] = next;
        next += count;
      }
      place[thread] = next;
    }
    __syncthreads();
    if (valid) pass.to[counts[warp()][digit] + before] = j;
    __syncthreads();
  }
}

}  // namespace hax::lsh
