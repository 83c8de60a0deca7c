// The band of LSH on CUDA: positions sorted by bin, then where each key expires.
#include "engine/cuda/pieces.cuh"
#include "ops/lsh/lsh_kernels.h"

namespace hax {

using cuda::kAllLanes;
using cuda::kWarp;

namespace {

constexpr int kThreads = 512, kWarps = kThreads / kWarp, kBits = 8, kDigits = 1 << kBits;
constexpr unsigned kExpireThreads = 256;

__device__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

// Lanes whose digit is this lane's; `valid` lanes alone have one.
__device__ unsigned peers_of(int digit, bool valid) {
  unsigned peers = __ballot_sync(kAllLanes, valid ? 1 : 0);
  for (int bit = 0; bit < kBits; ++bit) {
    const int mine = digit >> bit & 1;
    const unsigned set = __ballot_sync(kAllLanes, mine);
    peers &= mine != 0 ? set : ~set;
  }
  return peers;
}

// The smallest bin of a sequence, and how far the largest is from it. length >= 1.
struct Span {
  std::uint64_t lowest, width;
};
__device__ Span span_of(const std::int64_t* bin, std::int64_t length) {
  HAX_SHARED(lows, std::int64_t[kWarps]);
  HAX_SHARED(highs, std::int64_t[kWarps]);
  std::int64_t low = bin[0], high = low;
  for (std::int64_t j = threadIdx.x; j < length; j += kThreads) {
    low = bin[j] < low ? bin[j] : low;
    high = bin[j] > high ? bin[j] : high;
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
  const auto lowest = static_cast<std::uint64_t>(low);
  return {lowest, static_cast<std::uint64_t>(high) - lowest};
}

// counts [kDigits] become the numbers before each. The first warp does it, 8 digits a lane.
__device__ void sum_before(int* counts) {
  constexpr int kEach = kDigits / kWarp;
  if (warp() != 0) return;
  int* mine = counts + lane() * kEach;
  int sum = 0;
  for (int d = 0; d < kEach; ++d) sum += mine[d];
  int before = sum;  // up to and with this lane
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int other = __shfl_up_sync(kAllLanes, before, static_cast<unsigned>(distance));
    if (lane() >= distance) before += other;
  }
  before -= sum;
  for (int d = 0; d < kEach; ++d) {
    const int count = mine[d];
    mine[d] = before;
    before += count;
  }
}

// A block sorts the positions of one sequence by bin, stably: a byte of the bin a pass, as many
// passes as the span of its bins needs, as on the CPU. Elements are taken in order, 512 at a time;
// an element's place is where its digit begins, plus those of its digit in earlier warps, plus
// those in earlier lanes, which votes tell. spare int32 [T]; what one pass writes the next reads,
// so that the last one writes `orders`.
__global__ void __launch_bounds__(kThreads)
    sort_kernel(const std::int64_t* bins, const std::int32_t* offsets, std::int32_t* orders,
                std::int32_t* spare) {
  HAX_SHARED(place, int[kDigits]);
  HAX_SHARED(counts, int[kWarps][kDigits]);
  const std::int64_t begin = offsets[blockIdx.x], length = offsets[blockIdx.x + 1] - begin;
  if (length == 0) return;  // the whole block
  const std::int64_t* bin = bins + begin;
  const Span span = span_of(bin, length);
  const int width = span.width == 0 ? 1 : 64 - __clzll(static_cast<long long>(span.width));
  const int passes = (width + kBits - 1) / kBits;
  const int thread = static_cast<int>(threadIdx.x);
  for (int w = 0; w < kWarps; w += kThreads / kDigits) {
    counts[w + thread / kDigits][thread % kDigits] = 0;
  }
  for (int pass = 0; pass < passes; ++pass) {
    const bool last = (passes - pass) % 2 == 1;
    const std::int32_t* from = (last ? spare : orders) + begin;
    std::int32_t* to = (last ? orders : spare) + begin;
    const auto element = [&](std::int64_t p) {
      return pass == 0 ? static_cast<std::int32_t>(p) : from[p];
    };
    const auto digit_of = [&](std::int32_t j) {
      const std::uint64_t code = static_cast<std::uint64_t>(bin[j]) - span.lowest;
      return static_cast<int>(code >> (pass * kBits) & (kDigits - 1));
    };
    if (thread < kDigits) place[thread] = 0;
    __syncthreads();
    for (std::int64_t p = thread; p < length; p += kThreads) {
      atomicAdd(&place[digit_of(element(p))], 1);
    }
    __syncthreads();
    sum_before(place);
    __syncthreads();
    for (std::int64_t first = 0; first < length; first += kThreads) {
      const std::int64_t p = first + thread;
      const bool valid = p < length;
      const std::int32_t j = valid ? element(p) : 0;
      const int digit = valid ? digit_of(j) : 0;
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
      if (valid) to[counts[warp()][digit] + before] = j;
      __syncthreads();
      for (int w = 0; w < kWarps; w += kThreads / kDigits) {
        counts[w + thread / kDigits][thread % kDigits] = 0;
      }
      __syncthreads();
    }
  }
}

// A key expires with the `keys`-th later one of its bin, which is as many places on.
__global__ void expire_kernel(cuda::Pieces pieces, const std::int64_t* bins,
                              const std::int32_t* orders, std::int64_t keys, std::int32_t* death,
                              std::int32_t* expire) {
  const cuda::Piece piece = pieces.at(blockIdx.x);
  const std::int64_t t = piece.begin + threadIdx.x;
  if (t >= piece.end) return;
  const std::int64_t begin = pieces.offsets[piece.sequence];
  const std::int64_t left = pieces.offsets[piece.sequence + 1] - t;
  death[t] = static_cast<std::int32_t>(t - begin);
  const std::int32_t j = orders[t];
  std::int32_t until = KeySet::kForever;
  if (keys < left) {
    const std::int32_t later = orders[t + keys];
    if (bins[begin + later] == bins[begin + j]) until = later;
  }
  expire[begin + j] = until;
}

}  // namespace

void band_of_bins(Cuda, const Tensor& key_bin, const Sequences& sequences, std::int64_t keys,
                  Tensor& death, Tensor& expire, Tensor& order) {
  const std::int64_t tokens = key_bin.numel(), count = sequences.count();
  const std::int32_t* offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  const auto* bins = key_bin.data<std::int64_t>();
  auto* orders = order.data<std::int32_t>();
  Tensor spare = Tensor::empty({tokens}, DType::int32, kCuda);
  cuda::launch(sort_kernel, {cuda::blocks(count), kThreads}, bins, offsets, orders,
               spare.data<std::int32_t>());
  const cuda::Pieces pieces{offsets, count, kExpireThreads};
  cuda::launch(expire_kernel,
               {cuda::blocks(cuda::piece_places(tokens, count, kExpireThreads)), kExpireThreads},
               pieces, bins, orders, keys, death.data<std::int32_t>(), expire.data<std::int32_t>());
}

}  // namespace hax
