// The inner loops of the selective scan on the CPU: some states of one block of channels over
// one chunk of tokens. Included by selective_scan_cpu.cpp alone.
//
// Vectorised over channels: a block fills a register. What runs from token to token sits in local
// arrays, and the functions stay out of line, so that GCC keeps those arrays in registers.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "ops/selective_scan/selective_scan_kernels.h"
#include "ops/selective_scan/selective_scan_vector.h"

namespace hax::scan {

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

/// Some tokens of a sequence, and for each the row of y and C, or -1: nobody reads it.
struct Chunk {
  std::int64_t begin, len;
  std::array<std::int64_t, kScanChunk> row;
};

/// B of a chunk's tokens or C of all rows, from one state on: (i, j) is that of token or row i and
/// the j-th state from there.
template <class T>
struct Columns {
  const T* data;
  std::int64_t stride;
  T operator()(std::int64_t i, int j) const { return data[i * stride + j]; }
};

/// What all states of a block share at a token.
template <class T>
struct Token {
  Vec<T> u, dt, drive;  // drive = dt u
  Vec<T> y;             // in the backward its gradient; where nobody reads y it is not set
  Vec<T> dh_B;          // backward: the sum over states of dh B
  Vec<T> dexponent;     // backward: the sum over states of d loss / d (dt A) times rate
};
template <class T>
using Tile = std::array<Token<T>, kScanChunk>;

/// kStates states at once: h_t = 2^(dt_t rate) h_{t-1} + drive_t B_t, from h = carry and back into
/// it, and y_t += C_t h_t where somebody reads y_t.
template <int kStates, bool kVanishing, class T>
[[gnu::noinline]] void scan_states(const Chunk& chunk, const Lanes<T>* rate, Columns<T> B,
                                   Columns<T> C, Lanes<T>* carry, Tile<T>& tile) {
  const Decay<T, kVanishing> decay_of;
  Vec<T> h[kStates];
#pragma GCC unroll 4
  for (int j = 0; j < kStates; ++j) h[j] = carry[j].v;
  for (std::int64_t i = 0; i < chunk.len; ++i) {
    Token<T>& token = tile[i];
    const Vec<T> dt = token.dt, drive = token.drive;
#pragma GCC unroll 4
    for (int j = 0; j < kStates; ++j) h[j] = decay_of(dt, rate[j].v) * h[j] + drive * B(i, j);
    const std::int64_t row = chunk.row[i];
    if (row < 0) continue;
    Vec<T> y = token.y;
#pragma GCC unroll 4
    for (int j = 0; j < kStates; ++j) y += C(row, j) * h[j];
    token.y = y;
  }
#pragma GCC unroll 4
  for (int j = 0; j < kStates; ++j) carry[j].v = h[j];
}

/// What the backward of kStates states needs again: h before each token and after the last, and the
/// decays. What belongs to a token lies together.
template <int kStates, class T>
struct Trace {
  static constexpr std::int64_t kSize = 2 * kStates * (kScanChunk + 1);
  Lanes<T>* data;
  Vec<T>& h(std::int64_t i, int j) const { return data[2 * i * kStates + j].v; }
  Vec<T>& decay(std::int64_t i, int j) const { return data[(2 * i + 1) * kStates + j].v; }
};

/// Fills the traces of kStates states from their h[0].
template <int kStates, bool kVanishing, class T>
[[gnu::noinline]] void trace_states(const Chunk& chunk, const Tile<T>& tile, const Lanes<T>* rate,
                                    Columns<T> B, Trace<kStates, T> trace) {
  const Decay<T, kVanishing> decay_of;
  Vec<T> h[kStates];
#pragma GCC unroll 4
  for (int j = 0; j < kStates; ++j) h[j] = trace.h(0, j);
  for (std::int64_t i = 0; i < chunk.len; ++i) {
    const Vec<T> dt = tile[i].dt, drive = tile[i].drive;
#pragma GCC unroll 4
    for (int j = 0; j < kStates; ++j) {
      const Vec<T> decay = decay_of(dt, rate[j].v);
      h[j] = decay * h[j] + drive * B(i, j);
      trace.decay(i, j) = decay;
      trace.h(i + 1, j) = h[j];
    }
  }
}

/// Gradients of B and C at the tokens of a chunk for kStates states, channel by channel.
template <int kStates, class T>
struct ColumnSums {
  static constexpr std::int64_t kSize = 2 * kStates * kScanChunk;
  Lanes<T>* data;
  Vec<T>& dB(std::int64_t i, int j) const { return data[2 * i * kStates + j].v; }
  Vec<T>& dC(std::int64_t i, int j) const { return data[(2 * i + 1) * kStates + j].v; }
};

/// Zero for numbers close to the denormal ones. A gradient that only decays would end there and
/// stay, since the smallest of them times 0.6 rounds to itself, and arithmetic on them takes a
/// hundred times as long.
template <class T>
Vec<T> forget_tiny(Vec<T> x) {
  constexpr T kTiny = std::numeric_limits<T>::min() * (1 << 30);
  const Vec<T> size = x < 0 ? -x : x;
  return size < kTiny ? Vec<T>{} : x;
}

/// The adjoint of scan_states. carry: d loss / d h that arrives from later chunks, and then the one
/// for earlier chunks. Adds to the sums of the tile, to dA, dB and, where somebody reads y, dC.
template <int kStates, class T>
[[gnu::noinline]] void adjoint_states(const Chunk& chunk, Tile<T>& tile,
                                      const Trace<kStates, T> trace, const Lanes<T>* rate,
                                      Columns<T> B, Columns<T> C, Lanes<T>* carry, Lanes<T>* dA,
                                      const ColumnSums<kStates, T> sums) {
  Vec<T> dh[kStates], da[kStates], after[kStates];
#pragma GCC unroll 4
  for (int j = 0; j < kStates; ++j) {
    dh[j] = carry[j].v;
    da[j] = Vec<T>{};
    after[j] = trace.h(chunk.len, j);
  }
  for (std::int64_t i = chunk.len - 1; i >= 0; --i) {
    Token<T>& token = tile[i];
    if (const std::int64_t row = chunk.row[i]; row >= 0) {
      const Vec<T> dy = token.y;
#pragma GCC unroll 4
      for (int j = 0; j < kStates; ++j) {
        dh[j] += dy * C(row, j);
        sums.dC(i, j) += dy * after[j];
      }
    }
    const Vec<T> dt = token.dt, drive = token.drive;
    Vec<T> dh_B = token.dh_B, dexponent = token.dexponent;
#pragma GCC unroll 4
    for (int j = 0; j < kStates; ++j) {
      sums.dB(i, j) += dh[j] * drive;
      dh_B += dh[j] * B(i, j);
      after[j] = trace.h(i, j);
      dh[j] *= trace.decay(i, j);
      const Vec<T> q = dh[j] * after[j];
      dexponent += q * rate[j].v;
      da[j] += q * dt;
    }
    token.dh_B = dh_B;
    token.dexponent = dexponent;
  }
#pragma GCC unroll 4
  for (int j = 0; j < kStates; ++j) {
    carry[j].v = forget_tiny<T>(dh[j]);
    dA[j].v += da[j];
  }
}

}  // namespace hax::scan
