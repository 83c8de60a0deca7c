// Vectors of channels for the selective scan on the CPU, and the decays 2^x on them. Included by
// selective_scan_block.h alone.
//
// GCC's vector types, as wide as the machine's registers: what is a Vec here is a register there.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include "ops/vector_math.h"

namespace hax::scan {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

/// Channels of a block.
template <class T>
inline constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
struct VectorOf {
  using Type [[gnu::vector_size(kVectorBytes)]] = T;
  using Unaligned [[gnu::vector_size(kVectorBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
};
/// One number for each channel of a block.
template <class T>
using Vec = typename VectorOf<T>::Type;

/// A Vec in memory. Channels past the last are zero in every input, which keeps them zero
/// throughout.
template <class T>
struct Lanes {
  Vec<T> v;
};

/// Reads the channels of a block, of which only `width` may exist.
template <class T>
Vec<T> load(const T* from, std::int64_t width) {
  if (width >= kLanes<T>) return *reinterpret_cast<const typename VectorOf<T>::Unaligned*>(from);
  Vec<T> x{};
  for (std::int64_t k = 0; k < width; ++k) x[k] = from[k];
  return x;
}

template <class T>
void store(Vec<T> x, std::int64_t width, T* to) {
  if (width >= kLanes<T>) {
    *reinterpret_cast<typename VectorOf<T>::Unaligned*>(to) = x;
  } else {
    for (std::int64_t k = 0; k < width; ++k) to[k] = x[k];
  }
}

/// Fetches the memory that a store will write later on, which would otherwise make it wait.
template <class T>
void announce_store(T* to) {
  __builtin_prefetch(to, 1);
}

/// Fetches the memory that a load will read later on.
template <class T>
void announce_load(const T* from) {
  __builtin_prefetch(from);
}

/// Lane k of the result: the sum over the lanes of from[k]. In a round each of two vectors adds its
/// halves, its quarters and so on to each other, and both results share one vector.
template <class T>
Vec<T> sum_lanes(const Lanes<T>* from) {
  constexpr int kSide = kLanes<T>;
  Vec<T> x[kSide];
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) x[i] = from[i].v;
  const auto round = [&]<int kHalf, int... k>(std::integer_sequence<int, kHalf>,
                                              std::integer_sequence<int, k...>) {
#pragma GCC unroll 16
    for (int i = 0; i < kHalf; ++i) {
      const Vec<T> a = x[i], b = x[i + kHalf];
      x[i] = __builtin_shufflevector(a, b, (k & kHalf ? k + kSide : k)...) +
             __builtin_shufflevector(a, b, (k & kHalf ? (k ^ kHalf) + kSide : k ^ kHalf)...);
    }
  };
  const auto lanes = std::make_integer_sequence<int, kSide>{};
  if constexpr (kSide >= 16) round(std::integer_sequence<int, 8>{}, lanes);
  if constexpr (kSide >= 8) round(std::integer_sequence<int, 4>{}, lanes);
  if constexpr (kSide >= 4) round(std::integer_sequence<int, 2>{}, lanes);
  round(std::integer_sequence<int, 1>{}, lanes);
  return x[0];
}

/// to[k] = the sum over the lanes of from[k]; count is a multiple of kLanes.
template <class T>
void sum_lanes(const Lanes<T>* from, std::int64_t count, T* to) {
  for (std::int64_t k = 0; k < count; k += kLanes<T>) {
    store(sum_lanes(from + k), kLanes<T>, to + k);
  }
}

// Whether numbers can be looked up by the lanes of a vector, in two registers at once.
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#define HAX_SCAN_TABLE 1
#else
#define HAX_SCAN_TABLE 0
#endif

/// Whether a Decay has a shorter form for exponents of at least kLeastExponent.
template <class T>
inline constexpr bool kHasShortDecay = HAX_SCAN_TABLE && sizeof(T) == sizeof(float);
inline constexpr double kLeastExponent = -125;

/// 2^(dt rate) for a product of at most 0. kVanishing: the product may be below kLeastExponent.
/// Above it both forms give the same number to the bit.
template <class T, bool kVanishing>
struct Decay {
  Vec<T> operator()(Vec<T> dt, Vec<T> rate) const {
    const Vec<T> x = dt * rate;
    Vec<T> y;
    if constexpr (sizeof(T) == 4) {
#pragma omp simd
      for (int k = 0; k < kLanes<T>; ++k) y[k] = fast_exp2(x[k]);
    } else {
      for (int k = 0; k < kLanes<T>; ++k) y[k] = fast_exp2(x[k]);
    }
    return y;
  }
};

#if HAX_SCAN_TABLE

// x = n + j/32 + f with |f| <= 1/64, and 2^x = 2^(n + j/32) (1 + a f + b f^2 + c f^3). The sum that
// rounds x to n + j/32 has both in its last bits: shifted, n is in the exponent field and j at the
// top of the fraction, where the table puts the fraction of 2^(j/32) in its place. Ten operations,
// and one that makes zeros of small results, where fast_exp2 takes twelve. Relative error
// <= 1.2e-7.
struct DecayTable {
  alignas(kVectorBytes) std::array<std::uint32_t, 32> entries{};
  constexpr DecayTable() {
    double power = 1;  // 2^(j/32)
    for (std::uint32_t j = 0; j < 32; ++j) {
      const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(power));
      entries[j] = bits - std::bit_cast<std::uint32_t>(1.0F) - (j << 18);
      power *= 1.0218971486541166782;
    }
  }
};
inline constexpr DecayTable kDecayTable;

template <bool kVanishing>
struct Decay<float, kVanishing> {
  using Bits [[gnu::vector_size(kVectorBytes)]] = std::uint32_t;
  Bits low = *reinterpret_cast<const Bits*>(kDecayTable.entries.data());
  Bits high = *reinterpret_cast<const Bits*>(kDecayTable.entries.data() + kLanes<float>);

  Vec<float> operator()(Vec<float> dt, Vec<float> rate) const {
    // The last place of numbers from kRound on is 1/32; 127 is the bias of the exponent field.
    constexpr float kRound = 393216.0F, kShift = kRound + 127.0F;
    const Vec<float> rounded = dt * rate + kShift, f = dt * rate - (rounded - kShift);
    const Bits bits = reinterpret_cast<Bits>(rounded);
    const auto power =
        reinterpret_cast<Vec<float>>((bits << 18) + __builtin_shuffle(low, high, bits));
    // Taylor's coefficients: |f| is too small for others to be better.
    const Vec<float> rest = f * (6.93147181e-1F + f * (2.40226507e-1F + f * 5.55041087e-2F));
    const Vec<float> y = power + power * rest;
    if constexpr (!kVanishing) return y;
    return rounded < kRound + 1 ? Vec<float>{} : y;
  }
};

#endif

}  // namespace hax::scan
