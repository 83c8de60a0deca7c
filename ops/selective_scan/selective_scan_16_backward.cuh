// Backward of selective_scan on CUDA for 16 states in float32. Page: selective_scan.md, "On CUDA"
#pragma once

#include "ops/selective_scan/selective_scan_16.cuh"

namespace hax::scan_cuda {

/// Shares of the gradients that several blocks add to.
struct Shares {
  float *dB, *dC;  // [channel_blocks, T, N], [channel_blocks, R, N]
  float *dA, *dD;  // [places, E, N], [places, E]
};

/// A thread has two states of two neighbouring channels: dB and dC, sums over channels, begin in
/// its registers, and 8 lanes have all states of two channels. A warp has 8 channels.
struct Quarter {
  static constexpr int kWarps = kThreads / cuda::kWarp, kTokens = 4;  // summed up at once
  // What the lanes find of dB and dC for kTokens tokens (twice, so that one synchronization is
  // enough); what the warps find of those for a tile (twice).
  static constexpr int kTrace = kTokens * cuda::kWarp, kSums = kTileTokens * 8;
  static constexpr int kFloats = 4 * 2 * kWarps * (kTrace + kSums);
  static_assert(kSums == kThreads);

  float4 *trace, *sums;           // of the warp, of the block [2][kWarps][kSums]
  int warp, pair, lane, channel;  // channel: in the block, the first of the two

  __device__ explicit Quarter(float* memory)
      : warp(static_cast<int>(threadIdx.x) / cuda::kWarp),
        pair(static_cast<int>(threadIdx.x) % cuda::kWarp / 8),
        lane(static_cast<int>(threadIdx.x) % 8),
        channel(8 * warp + 2 * pair) {
    auto* quads = reinterpret_cast<float4*>(memory);
    trace = quads + 2 * kTrace * warp;
    sums = quads + 2 * kTrace * kWarps;
  }

  /// Sums over a channel's 8 lanes for 4 tokens of both channels: the one of token lane / 2 and
  /// channel lane % 2.
  __device__ float join(const float (&x)[kTokens][2]) const {
    const bool late = (lane & 4) != 0, odd = (lane & 2) != 0, second = (lane & 1) != 0;
    float y[2][2], z[2];
    HAX_UNROLL
    for (int j = 0; j < 2; ++j) {
      HAX_UNROLL
      for (int c = 0; c < 2; ++c) {
        const float send = late ? x[j][c] : x[2 + j][c], keep = late ? x[2 + j][c] : x[j][c];
        y[j][c] = keep + __shfl_xor_sync(cuda::kAllLanes, send, 4);
      }
    }
    HAX_UNROLL
    for (int c = 0; c < 2; ++c) {
      const float send = odd ? y[0][c] : y[1][c], keep = odd ? y[1][c] : y[0][c];
      z[c] = keep + __shfl_xor_sync(cuda::kAllLanes, send, 2);
    }
    return (second ? z[1] : z[0]) + __shfl_xor_sync(cuda::kAllLanes, second ? z[0] : z[1], 1);
  }
  /// After a __syncwarp(): adds the four pairs of channels in the trace of tokens from.. up.
  __device__ void add_pairs(const float4* of, int from, int buffer) const {
    const int token = static_cast<int>(threadIdx.x) % cuda::kWarp / 8;
    float4 sum = of[token * cuda::kWarp + lane];
    HAX_UNROLL
    for (int p = 1; p < 4; ++p) sum = added(sum, of[token * cuda::kWarp + 8 * p + lane]);
    sums[(buffer * kWarps + warp) * kSums + (from + token) * 8 + lane] = sum;
  }
  /// After a barrier: the sums over all channels of the block of token threadIdx.x / 8 and states
  /// 2 (threadIdx.x % 8) and following, dB and dC.
  __device__ float4 add_warps(int buffer) const {
    const float4* of = sums + buffer * kWarps * kSums + threadIdx.x;
    float4 sum = of[0];
    HAX_UNROLL
    for (int w = 1; w < kWarps; ++w) sum = added(sum, of[w * kSums]);
    return sum;
  }

  __device__ static float4 added(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  }
};

inline constexpr std::size_t kBackward16Bytes =
    sizeof(float) * (Tiles<true>::kFloats + Quarter::kFloats);

/// carry [places, E, N]: the gradient of the state behind a piece, null: dfinal [S, E, N], which
/// may be null too. T is float.
template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    backward_16_kernel(Inputs<T> in, const T* dy, const T* dfinal, const float* carry,
                       const float* states, std::int64_t tokens, std::int64_t wanted, T* du, T* ddt,
                       T* dinitial, Shares shares) {
  auto* memory = cuda::dynamic_shared<float>();
  const Quarter own(memory + Tiles<true>::kFloats);
  const std::int64_t at = block_place(in);
  const cuda::Piece piece = in.pieces.at(at);
  Tiles<true> tiles(in, dy, piece, memory);
  const std::int64_t first_e = static_cast<std::int64_t>(blockIdx.y) * kTileChannels;
  const std::int64_t e = first_e + own.channel;
  const int n = 2 * own.lane, lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  // States n and n + 1 of channel e, then those of e + 1, in [.., E, N].
  const auto load = [&](const float* from, std::int64_t of, float(&to)[4]) {
    from += (of * in.dim + e) * kTileStates + n;
    to[0] = from[0], to[1] = from[1], to[2] = from[kTileStates], to[3] = from[kTileStates + 1];
  };
  const auto store = [&](const float(&from)[4], std::int64_t of, float* to) {
    to += (of * in.dim + e) * kTileStates + n;
    to[0] = from[0], to[1] = from[1], to[kTileStates] = from[2], to[kTileStates + 1] = from[3];
  };
  float rate[4], dh[4] = {}, dA[4] = {}, dD = 0, start[4] = {};
  load(in.A, 0, rate);
  for (float& r : rate) r *= std::numbers::log2e_v<float>;
  if (carry != nullptr) {
    load(carry, at, dh);
  } else if (dfinal != nullptr) {
    load(dfinal, piece.sequence, dh);
  }
  // What the joined sums of this lane are for.
  const int out_token = own.lane / 2, out_channel = own.channel + own.lane % 2;
  const float skip = in.D[first_e + out_channel];
  float* dB = shares.dB + blockIdx.y * tokens * kTileStates + n;
  float* dC = shares.dC + blockIdx.y * wanted * kTileStates + n;
  const auto write_sums = [&](int k) {
    const float4 sum = own.add_warps(k & 1);
    const int token = static_cast<int>(threadIdx.x) / 8, t = tiles.begin(k) + token;
    const int row = tiles.rows(k)[token];
    if (t < tiles.end()) {
      *reinterpret_cast<float2*>(dB + std::int64_t{t} * kTileStates) = make_float2(sum.x, sum.y);
    }
    if (row >= 0) {
      *reinterpret_cast<float2*>(dC + std::int64_t{row} * kTileStates) = make_float2(sum.z, sum.w);
    }
  };
  const std::int64_t first_chunk = in.chunk_place(piece.sequence, piece.begin);
  if (tiles.count() > 0) load(states, first_chunk + tiles.count() - 1, start);
  for (int k = 0; k < tiles.count(); ++k) {
    const Tile tile = tiles.next(k);
    if (k > 0) write_sums(k - 1);
    float h[kTileTokens][4];  // after each token
    const float at_begin[4] = {start[0], start[1], start[2], start[3]};
    if (k + 1 < tiles.count()) load(states, first_chunk + tiles.count() - 2 - k, start);
    HAX_UNROLL
    for (int i = 0; i < kTileTokens; ++i) {
      const float2 dt = Tile::two(tile.dt + i * kTileRow + own.channel);
      const float2 u = Tile::two(tile.u + i * kTileRow + own.channel);
      const float2 B = Tile::two(tile.B + i * kTileStates + n);
      const float drive[2] = {dt.x * u.x, dt.y * u.y};
      const float* before = i > 0 ? h[i - 1] : at_begin;
      h[i][0] = cuda::fast_exp2(dt.x * rate[0]) * before[0] + drive[0] * B.x;
      h[i][1] = cuda::fast_exp2(dt.x * rate[1]) * before[1] + drive[0] * B.y;
      h[i][2] = cuda::fast_exp2(dt.y * rate[2]) * before[2] + drive[1] * B.x;
      h[i][3] = cuda::fast_exp2(dt.y * rate[3]) * before[3] + drive[1] * B.y;
    }
    const std::int64_t first_out = tiles.begin(k) * in.dim + first_e + out_channel;
    HAX_UNROLL
    for (int from = kTileTokens - 4; from >= 0; from -= 4) {
      float4* trace = own.trace + from / 4 % 2 * Quarter::kTrace;
      float dh_B[4][2], dexponent[4][2];
      HAX_UNROLL
      for (int j = 3; j >= 0; --j) {
        const int i = from + j;
        const float2 dt = Tile::two(tile.dt + i * kTileRow + own.channel);
        const float2 u = Tile::two(tile.u + i * kTileRow + own.channel);
        const float2 g = Tile::two(tile.dy + i * kTileRow + own.channel);
        const float2 B = Tile::two(tile.B + i * kTileStates + n);
        const float2 C = Tile::two(tile.C + i * kTileStates + n);
        const float drive[2] = {dt.x * u.x, dt.y * u.y};
        const float* before = i > 0 ? h[i - 1] : at_begin;
        dh[0] += g.x * C.x;
        dh[1] += g.x * C.y;
        dh[2] += g.y * C.x;
        dh[3] += g.y * C.y;
        dh_B[j][0] = dh[0] * B.x + dh[1] * B.y;
        dh_B[j][1] = dh[2] * B.x + dh[3] * B.y;
        trace[j * cuda::kWarp + lane] =
            make_float4(dh[0] * drive[0] + dh[2] * drive[1], dh[1] * drive[0] + dh[3] * drive[1],
                        h[i][0] * g.x + h[i][2] * g.y, h[i][1] * g.x + h[i][3] * g.y);
        dh[0] *= cuda::fast_exp2(dt.x * rate[0]);
        dh[1] *= cuda::fast_exp2(dt.x * rate[1]);
        dh[2] *= cuda::fast_exp2(dt.y * rate[2]);
        dh[3] *= cuda::fast_exp2(dt.y * rate[3]);
        const float q[4] = {dh[0] * before[0], dh[1] * before[1], dh[2] * before[2],
                            dh[3] * before[3]};
        dexponent[j][0] = q[0] * rate[0] + q[1] * rate[1];
        dexponent[j][1] = q[2] * rate[2] + q[3] * rate[3];
        dA[0] += q[0] * dt.x;
        dA[1] += q[1] * dt.x;
        dA[2] += q[2] * dt.y;
        dA[3] += q[3] * dt.y;
      }
      const float sum_B = own.join(dh_B), sum_exponent = own.join(dexponent);
      const int i = from + out_token, of = i * kTileRow + out_channel;
      const float u = tile.u[of], dt = tile.dt[of], g = tile.dy[of];
      dD += g * u;
      if (tiles.begin(k) + i < tiles.end()) {
        const std::int64_t to = first_out + i * in.dim;
        du[to] = dt * sum_B + skip * g;
        ddt[to] = u * sum_B + std::numbers::ln2_v<float> * sum_exponent;
      }
      __syncwarp();
      own.add_pairs(trace, from, k & 1);
    }
  }
  __syncthreads();
  if (tiles.count() > 0) write_sums(tiles.count() - 1);
  store(dA, at, shares.dA);
  dD += __shfl_xor_sync(cuda::kAllLanes, dD, 2);
  dD += __shfl_xor_sync(cuda::kAllLanes, dD, 4);
  if (own.lane < 2) shares.dD[at * in.dim + first_e + out_channel] = dD;
  if (dinitial != nullptr && piece.index == 0) store(dh, piece.sequence, dinitial);
  for_each_left_over(in, tokens, [&](std::int64_t token, std::int64_t row) {
    const int me = static_cast<int>(threadIdx.x);
    if (me < kTileChannels) {
      du[token * in.dim + first_e + me] = ddt[token * in.dim + first_e + me] = 0;
    }
    if (me < 8) {
      *reinterpret_cast<float2*>(dB + token * kTileStates) = make_float2(0, 0);
      if (row >= 0) *reinterpret_cast<float2*>(dC + row * kTileStates) = make_float2(0, 0);
    }
  });
}

}  // namespace hax::scan_cuda
