// Forward of selective_scan on CUDA for 16 states in float32. Page: selective_scan.md, "On CUDA"
#pragma once

#include "ops/selective_scan/selective_scan_16.cuh"

namespace hax::scan_cuda {

inline constexpr std::size_t kForward16Bytes = sizeof(float) * Tiles<false>::kFloats;

/// From carry [places, E, N], or where that is null from initial [S, E, N], which may be null too.
/// A thread has 4 states of a channel. T is float.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    forward_16_kernel(Inputs<T> in, std::int64_t tokens, const T* initial, const float* carry, T* y,
                      T* final_state, float* states) {
  const Place<T> place(in);
  const std::int64_t at = block_place(in);
  const cuda::Piece piece = in.pieces.at(at);
  Tiles<false> tiles(in, nullptr, piece, cuda::dynamic_shared<float>());
  float rate[kStates], h[kStates] = {};
  place.load_rates(in, rate);
  const float skip = in.D[place.e];
  if (carry != nullptr) {
    place.load(carry + place.at(in, at), h);
  } else if (initial != nullptr) {
    place.load(initial + place.at(in, piece.sequence), h);
  }
  if (states != nullptr) {
    states += place.at(in, in.chunk_place(piece.sequence, piece.begin));
  }
  y += place.e;
  for (int k = 0; k < tiles.count(); ++k) {
    const Tile tile = tiles.next(k);
    if (states != nullptr) {
      *reinterpret_cast<float4*>(states) = make_float4(h[0], h[1], h[2], h[3]);
      states += in.dim * kTileStates;
    }
    HAX_UNROLL
    for (int from = 0; from < kTileTokens; from += 4) {
      TokenSums<2> read{};
      HAX_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int i = from + j, own = i * kTileRow + place.channel;
        const int column = i * kTileStates + place.lane * kStates;
        const float dt = tile.dt[own], drive = dt * tile.u[own];
        const float4 B = Tile::four(tile.B + column), C = Tile::four(tile.C + column);
        h[0] = cuda::fast_exp2(dt * rate[0]) * h[0] + drive * B.x;
        h[1] = cuda::fast_exp2(dt * rate[1]) * h[1] + drive * B.y;
        h[2] = cuda::fast_exp2(dt * rate[2]) * h[2] + drive * B.z;
        h[3] = cuda::fast_exp2(dt * rate[3]) * h[3] + drive * B.w;
        read.x[j] = C.x * h[0] + C.y * h[1] + C.z * h[2] + C.w * h[3];
      }
      read.join(place.lane, 2);
      const int i = from + place.lane, row = tile.row[i];
      const float sum = read.of(0) + skip * tile.u[i * kTileRow + place.channel];
      if (row >= 0) y[row * in.dim] = sum;
    }
  }
  for_each_left_over(in, tokens, [&](std::int64_t, std::int64_t row) {
    if (row >= 0 && place.lane == 0) y[row * in.dim] = 0;
  });
  if (piece.last) place.store(h, final_state + place.at(in, piece.sequence));
}

}  // namespace hax::scan_cuda
