// States as the caller of selective_scan sees them, [channel, state], and as the CPU keeps them,
// [state, channel] a block: a transposition. Included by selective_scan_cpu.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "ops/selective_scan/selective_scan_block.h"

namespace hax::scan {

// A square of numbers whose rows are vectors, all of them in registers.
#if defined(__AVX512F__)
inline constexpr int kSquareBytes = 64;
#else
inline constexpr int kSquareBytes = 16;
#endif
template <class T>
inline constexpr int kSquare = kSquareBytes / sizeof(T);
template <class T>
using SquareRow [[gnu::vector_size(kSquareBytes)]] = T;
template <class T>
using RowInMemory [[gnu::vector_size(kSquareBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;

/// Transposes a square whose rows are `from_row` and then `to_row` numbers apart. A round puts the
/// rows of its halves number by number between each other. In binary the place of a number, row and
/// column, turns by one bit; in the end row and column have changed places.
template <class T>
void transpose_square(const T* from, std::int64_t from_row, T* to, std::int64_t to_row) {
  constexpr int kSide = kSquare<T>, kHalf = kSide / 2;
  SquareRow<T> x[kSide], y[kSide];
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) {
    x[i] = *reinterpret_cast<const RowInMemory<T>*>(from + i * from_row);
  }
  const auto round = [&]<int... k>(std::integer_sequence<int, k...>) {
#pragma GCC unroll 16
    for (int i = 0; i < kHalf; ++i) {
      const SquareRow<T> a = x[i], b = x[i + kHalf];
      y[2 * i] = __builtin_shufflevector(a, b, (k % 2 * kSide + k / 2)...);
      y[2 * i + 1] = __builtin_shufflevector(a, b, (k % 2 * kSide + k / 2 + kHalf)...);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) x[i] = y[i];
  };
#pragma GCC unroll 4
  for (int side = 1; side < kSide; side *= 2) round(std::make_integer_sequence<int, kSide>{});
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) *reinterpret_cast<RowInMemory<T>*>(to + i * to_row) = x[i];
}

/// Transposes any number of rows and columns.
template <class T>
[[gnu::noinline]] void transpose(const T* from, std::int64_t from_row, std::int64_t rows,
                                 std::int64_t columns, T* to, std::int64_t to_row) {
  const std::int64_t square_columns = columns - columns % kSquare<T>;
  std::int64_t r = 0;
  for (; r + kSquare<T> <= rows; r += kSquare<T>) {
    for (std::int64_t c = 0; c < square_columns; c += kSquare<T>) {
      transpose_square(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
    }
    for (std::int64_t c = square_columns; c < columns; ++c) {
      for (int i = 0; i < kSquare<T>; ++i) to[c * to_row + r + i] = from[(r + i) * from_row + c];
    }
  }
  for (; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) to[c * to_row + r] = from[r * from_row + c];
  }
}

/// The states of a block, [channel, state] -> one Lanes a state, zero past the last channel.
template <class T>
void load_states(const T* from, std::int64_t width, std::int64_t state, Lanes<T>* to) {
  if (state == 0) return;
  if (width < kLanes<T>) std::fill_n(to, state, Lanes<T>{});
  transpose(from, state, std::min<std::int64_t>(width, kLanes<T>), state, reinterpret_cast<T*>(to),
            kLanes<T>);
}
/// The reverse.
template <class T>
void store_states(const Lanes<T>* from, std::int64_t width, std::int64_t state, T* to) {
  if (state == 0) return;
  transpose(reinterpret_cast<const T*>(from), kLanes<T>, state,
            std::min<std::int64_t>(width, kLanes<T>), to, state);
}

}  // namespace hax::scan
