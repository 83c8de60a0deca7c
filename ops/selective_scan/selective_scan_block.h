// The inner loops of the selective scan on the CPU: one state of one block of channels over one
// chunk of tokens. Included by selective_scan_cpu.cpp alone.
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

/// Replaces `count` blocks by the sums over their lanes, now the first `count` numbers: neighbours
/// are added until one number a block is left.
template <class T>
void sum_lanes(Lanes<T>* blocks, std::int64_t count) {
  T* x = blocks->v;
  for (std::int64_t lanes = kLanes<T> / 2; lanes >= 1; lanes /= 2) {
#pragma omp simd
    for (std::int64_t j = 0; j < count * lanes; ++j) x[j] = x[2 * j] + x[2 * j + 1];
  }
}

/// B or C of one state at each token of a chunk.
template <class T>
struct Column {
  const T* data;
  std::int64_t stride;
  T operator[](std::int64_t i) const { return data[i * stride]; }
};

/// What all states of a block share: u, dt and drive = dt u.
template <class T>
struct BlockInputs {
  Tile<T> u, dt, drive;
};

/// h_t = 2^(dt_t rate) h_{t-1} + drive_t B_t and y_t += C_t h_t, from h = carry and back into it.
template <class T>
[[gnu::noinline]] void scan_state(std::int64_t len, const BlockInputs<T>& in, const Lanes<T>& rate,
                                  Column<T> B, Column<T> C, Lanes<T>& carry, Tile<T>& y) {
  T h[kLanes<T>];
  copy_lanes(carry.v, h);
  for (std::int64_t i = 0; i < len; ++i) {
    const T b = B[i], c = C[i];
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) {
      const T decay = fast_exp2(in.dt[i].v[k] * rate.v[k]);
      h[k] = decay * h[k] + in.drive[i].v[k] * b;
      y[i].v[k] += c * h[k];
    }
  }
  copy_lanes(h, carry.v);
}

/// What the backward needs again: h before each token and after the last, and the decays.
template <class T>
struct StateTrace {
  std::array<Lanes<T>, kScanChunk + 1> h;
  Tile<T> decay;
};

/// Fills the trace from its h[0].
template <class T>
[[gnu::noinline]] void trace_state(std::int64_t len, const BlockInputs<T>& in, const Lanes<T>& rate,
                                   Column<T> B, StateTrace<T>& trace) {
  T h[kLanes<T>];
  copy_lanes(trace.h[0].v, h);
  for (std::int64_t i = 0; i < len; ++i) {
    const T b = B[i];
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) {
      const T decay = fast_exp2(in.dt[i].v[k] * rate.v[k]);
      h[k] = decay * h[k] + in.drive[i].v[k] * b;
      trace.decay[i].v[k] = decay;
      trace.h[i + 1].v[k] = h[k];
    }
  }
}

/// Sums over the states of a block, from which du and ddt follow.
template <class T>
struct BlockSums {
  Tile<T> dh_B;       // of dh B
  Tile<T> dexponent;  // of d loss / d (dt A) times rate
};

/// The adjoint of scan_state. carry: d loss / d h that arrives from later chunks, and then the one
/// for earlier chunks. dA, and dB and dC at each token of the chunk, are added to channel by
/// channel.
template <class T>
[[gnu::noinline]] void adjoint_state(std::int64_t len, const BlockInputs<T>& in, const Tile<T>& dy,
                                     const StateTrace<T>& trace, const Lanes<T>& rate, Column<T> B,
                                     Column<T> C, Lanes<T>& carry, BlockSums<T>& sums, Lanes<T>& dA,
                                     Lanes<T>* dB, Lanes<T>* dC) {
  T g[kLanes<T>], da[kLanes<T>];
  copy_lanes(carry.v, g);
  copy_lanes(Lanes<T>{}.v, da);
  for (std::int64_t i = len - 1; i >= 0; --i) {
    const T b = B[i], c = C[i];
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) {
      const T decay = trace.decay[i].v[k], from_y = dy[i].v[k] * c;
      const T dh = g[k] + from_y;
      dC[i].v[k] += dy[i].v[k] * trace.h[i + 1].v[k];
      dB[i].v[k] += dh * in.drive[i].v[k];
      sums.dh_B[i].v[k] += dh * b;
      // dh decay, in the form that waits for one operation of the token after, not for two.
      g[k] = g[k] * decay + from_y * decay;
      const T dexponent = g[k] * trace.h[i].v[k];
      sums.dexponent[i].v[k] += dexponent * rate.v[k];
      da[k] += dexponent * in.dt[i].v[k];
    }
  }
#pragma omp simd
  for (int k = 0; k < kLanes<T>; ++k) {
    carry.v[k] = g[k];
    dA.v[k] += da[k];
  }
}

}  // namespace hax::scan
