// The inner loops of the selective scan on the CPU: some states of one block of channels over
// one chunk of tokens. Included by selective_scan_cpu.cpp alone.
//
// Vectorised over channels: a block fills a 64-byte vector. What runs from token to token sits in
// local arrays, and the functions stay out of line, so that GCC keeps those arrays in registers.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "ops/selective_scan/selective_scan_kernels.h"
#include "ops/vector_math.h"

namespace hax::scan {

/// Channels of a block.
template <class T>
inline constexpr int kLanes = 64 / sizeof(T);

/// One number for each channel of a block. Channels past the last are zero in every input, which
/// keeps them zero throughout.
template <class T>
struct alignas(64) Lanes {
  T v[kLanes<T>];
};

/// The same for each token of a chunk.
template <class T>
using Tile = std::array<Lanes<T>, kScanChunk>;

/// States worked on at once: what they share is then loaded and stored once for all, and the
/// processor finds independent chains of operations.
inline constexpr int kGroup = 4;

/// Calls f.operator()<kStates>(n) for all groups of states n .. n + kStates - 1.
template <class F>
void for_each_group(std::int64_t state, F f) {
  std::int64_t n = 0;
  for (; n + kGroup <= state; n += kGroup) f.template operator()<kGroup>(n);
  for (; n < state; ++n) f.template operator()<1>(n);
}

/// Copies a block. GCC would make a memcpy in two halves of a loop; the load of the whole that
/// follows could then not be forwarded from the stores and would wait until they have retired.
template <class T>
void copy_lanes(const T* from, T* to) {
  using Whole [[gnu::vector_size(64), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
  *reinterpret_cast<Whole*>(to) = *reinterpret_cast<const Whole*>(from);
}

/// Reads the channels of a block, of which only `width` may exist.
template <class T>
void load(const T* from, std::int64_t width, Lanes<T>& to) {
  if (width >= kLanes<T>) {
    copy_lanes(from, to.v);
  } else {
    std::fill_n(std::copy_n(from, width, to.v), kLanes<T> - width, T(0));
  }
}

template <class T>
void store(const Lanes<T>& from, std::int64_t width, T* to) {
  if (width >= kLanes<T>) {
    copy_lanes(from.v, to);
  } else {
    std::copy_n(from.v, width, to);
  }
}

/// The sums over the lanes of `count` blocks, in their place: neighbours are added until one number
/// a block is left.
template <class T>
const T* sum_lanes(Lanes<T>* blocks, std::int64_t count) {
  T* x = blocks->v;
  for (std::int64_t lanes = kLanes<T> / 2; lanes >= 1; lanes /= 2) {
#pragma omp simd
    for (std::int64_t j = 0; j < count * lanes; ++j) x[j] = x[2 * j] + x[2 * j + 1];
  }
  return x;
}

/// B or C of a chunk, from one state on: (i, j) is that of token i and the j-th state from there.
template <class T>
struct Columns {
  const T* data;
  std::int64_t stride;
  T operator()(std::int64_t i, int j) const { return data[i * stride + j]; }
};

/// What all states of a block share: u, dt and drive = dt u.
template <class T>
struct BlockInputs {
  Tile<T> u, dt, drive;
};

/// kStates states at once: h_t = 2^(dt_t rate) h_{t-1} + drive_t B_t and y_t += C_t h_t, from h =
/// carry and back into it.
template <int kStates, class T>
[[gnu::noinline]] void scan_states(std::int64_t len, const BlockInputs<T>& in, const Lanes<T>* rate,
                                   Columns<T> B, Columns<T> C, Lanes<T>* carry, Tile<T>& y) {
  T h[kStates][kLanes<T>];
  for (int j = 0; j < kStates; ++j) copy_lanes(carry[j].v, h[j]);
  for (std::int64_t i = 0; i < len; ++i) {
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) {
      T sum = y[i].v[k];
      for (int j = 0; j < kStates; ++j) {
        const T decay = fast_exp2(in.dt[i].v[k] * rate[j].v[k]);
        h[j][k] = decay * h[j][k] + in.drive[i].v[k] * B(i, j);
        sum += C(i, j) * h[j][k];
      }
      y[i].v[k] = sum;
    }
  }
  for (int j = 0; j < kStates; ++j) copy_lanes(h[j], carry[j].v);
}

/// What the backward of a state needs again: h before each token and after the last, and the
/// decays.
template <class T>
struct StateTrace {
  std::array<Lanes<T>, kScanChunk + 1> h;
  Tile<T> decay;
};

/// Fills the traces of kStates states from their h[0].
template <int kStates, class T>
[[gnu::noinline]] void trace_states(std::int64_t len, const BlockInputs<T>& in,
                                    const Lanes<T>* rate, Columns<T> B, StateTrace<T>* trace) {
  T h[kStates][kLanes<T>];
  for (int j = 0; j < kStates; ++j) copy_lanes(trace[j].h[0].v, h[j]);
  for (std::int64_t i = 0; i < len; ++i) {
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) {
      for (int j = 0; j < kStates; ++j) {
        const T decay = fast_exp2(in.dt[i].v[k] * rate[j].v[k]);
        h[j][k] = decay * h[j][k] + in.drive[i].v[k] * B(i, j);
        trace[j].decay[i].v[k] = decay;
        trace[j].h[i + 1].v[k] = h[j][k];
      }
    }
  }
}

/// Sums over the states of a block, from which du and ddt follow.
template <class T>
struct BlockSums {
  Tile<T> dh_B;       // of dh B
  Tile<T> dexponent;  // of d loss / d (dt A) times rate
};

/// The adjoint of scan_states. carry: d loss / d h that arrives from later chunks, and then the one
/// for earlier chunks. Adds to dA, dB and dC, channel by channel, the latter two at each token.
template <int kStates, class T>
[[gnu::noinline]] void adjoint_states(std::int64_t len, const BlockInputs<T>& in, const Tile<T>& dy,
                                      const StateTrace<T>* trace, const Lanes<T>* rate,
                                      Columns<T> B, Columns<T> C, Lanes<T>* carry,
                                      BlockSums<T>& sums, Lanes<T>* dA, Tile<T>* dB, Tile<T>* dC) {
  T g[kStates][kLanes<T>], da[kStates][kLanes<T>];
  for (int j = 0; j < kStates; ++j) {
    copy_lanes(carry[j].v, g[j]);
    copy_lanes(Lanes<T>{}.v, da[j]);
  }
  for (std::int64_t i = len - 1; i >= 0; --i) {
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) {
      T dh_B = sums.dh_B[i].v[k], dexponent = sums.dexponent[i].v[k];
      for (int j = 0; j < kStates; ++j) {
        const T decay = trace[j].decay[i].v[k], from_y = dy[i].v[k] * C(i, j);
        const T dh = g[j][k] + from_y;
        dC[j][i].v[k] += dy[i].v[k] * trace[j].h[i + 1].v[k];
        dB[j][i].v[k] += dh * in.drive[i].v[k];
        dh_B += dh * B(i, j);
        // dh decay, in the form that waits for one operation of the token after, not for two.
        g[j][k] = g[j][k] * decay + from_y * decay;
        const T q = g[j][k] * trace[j].h[i].v[k];
        dexponent += q * rate[j].v[k];
        da[j][k] += q * in.dt[i].v[k];
      }
      sums.dh_B[i].v[k] = dh_B;
      sums.dexponent[i].v[k] = dexponent;
    }
  }
  for (int j = 0; j < kStates; ++j) {
    copy_lanes(g[j], carry[j].v);
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) dA[j].v[k] += da[j][k];
  }
}

}  // namespace hax::scan
