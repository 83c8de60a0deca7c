// Small matrix products for ssd on the CPU. Included by its *_cpu.cpp files alone.
//
// Matrices are kept in rows of 16 numbers, filled up with zeros, so that the innermost loop is one
// or two full vectors whatever the sizes of the model.
#pragma once

#include <algorithm>
#include <cstdint>

namespace hax::ssd_tile {

inline constexpr int kWidth = 16;

template <class T>
struct alignas(64) Row {
  T v[kWidth];
};

/// Rows that hold `count` numbers.
constexpr std::int64_t rows_for(std::int64_t count) { return (count + kWidth - 1) / kWidth; }

/// Left factor of a product, a(r, d): neighbours in r, `step` apart in d.
template <class T>
struct ByColumn {
  const T* data;
  std::int64_t step;
  T operator()(std::int64_t r, std::int64_t d) const { return data[d * step + r]; }
};
/// The same, neighbours in d, `row` apart in r.
template <class T>
struct ByRow {
  const T* data;
  std::int64_t row;
  T operator()(std::int64_t r, std::int64_t d) const { return data[r * row + d]; }
};
/// Right factor b(d): 16 numbers, `step` numbers from one d to the next.
template <class T>
struct Right {
  const T* data;
  std::int64_t step;
};

// Rows of a result that fit into the vector registers beside the factors. A factor ByRow needs a
// register for the address of each row.
#if defined(__AVX512F__)
inline constexpr int kRegisterBytes = 1024;
#elif defined(__AVX__)
inline constexpr int kRegisterBytes = 256;
#else
inline constexpr int kRegisterBytes = 128;
#endif
template <class T>
inline constexpr int kRowsByColumn = kRegisterBytes / (kWidth * sizeof(T));
template <class T>
inline constexpr int kRowsByRow = kRowsByColumn<T> < 8 ? kRowsByColumn<T> : 8;

/// Some rows of a result while it is computed.
template <int kRows, class T>
struct Tile {
  T v[kRows][kWidth];

  template <class F>
  void each(F&& f) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma omp simd
      for (int k = 0; k < kWidth; ++k) f(r, k, v[r][k]);
    }
  }
  void clear() {
    each([](int, int, T& x) { x = 0; });
  }
  /// Row r times factors[r].
  void scale_rows(const T* factors) {
    each([=](int r, int, T& x) { x *= factors[r]; });
  }
  /// += a b over depth >= 1.
  template <class Left>
  void add(std::int64_t depth, Left a, Right<T> b) {
    if (depth < 1) __builtin_unreachable();  // or the tile makes a detour through memory
    for (std::int64_t d = 0; d < depth; ++d) {
      const T* row = b.data + d * b.step;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const T factor = a(r, d);
#pragma omp simd
        for (int k = 0; k < kWidth; ++k) v[r][k] += factor * row[k];
      }
    }
  }
  /// Rows `stride` numbers apart. Adding zero keeps GCC from copying the tile by way of memory.
  void store(T* to, std::int64_t stride) {
    each([=](int r, int k, T x) { to[r * stride + k] = x + T(0); });
  }
  /// The first `width` numbers of each row.
  void store(T* to, std::int64_t stride, std::int64_t width) {
    if (width >= kWidth) return store(to, stride);
    T rows[kRows][kWidth];
    store(rows[0], kWidth);
    for (int r = 0; r < kRows; ++r) std::copy_n(rows[r], width, to + r * stride);
  }
};

/// Calls f.operator()<rows>(first) for tiles of at most kRows rows that cover 0..rows.
template <int kRows, class F>
void for_tiles(std::int64_t rows, F&& f, std::int64_t first = 0) {
  for (; first + kRows <= rows; first += kRows) f.template operator()<kRows>(first);
  if constexpr (kRows > 1) {
    if (first < rows) for_tiles<kRows / 2>(rows, f, first);
  }
}

/// One round of a transposition: the two halves of 256 numbers, shuffled into each other. In binary
/// the place of a number, row and column, turns by one bit; after four rounds they have changed
/// places.
template <class T>
inline void shuffle(const T* __restrict from, T* __restrict to) {
#pragma omp simd
  for (int i = 0; i < kWidth * kWidth / 2; ++i) {
    to[2 * i] = from[i];
    to[2 * i + 1] = from[i + kWidth * kWidth / 2];
  }
}

/// Numbers of `count` <= 16 tokens, `stride` apart -> one row a column, zero past the last token.
template <class T>
[[gnu::noinline]] void transpose_in(const T* __restrict from, std::int64_t stride,
                                    std::int64_t count, std::int64_t columns,
                                    Row<T>* __restrict to) {
  std::int64_t c = 0;
  for (; c + kWidth <= columns; c += kWidth) {
    Row<T> a[kWidth], b[kWidth];
    for (std::int64_t r = 0; r < count; ++r) {
#pragma omp simd
      for (int k = 0; k < kWidth; ++k) a[r].v[k] = from[r * stride + c + k] + T(0);
    }
    std::fill(a + count, a + kWidth, Row<T>{});
    shuffle(a[0].v, b[0].v);
    shuffle(b[0].v, a[0].v);
    shuffle(a[0].v, b[0].v);
    shuffle(b[0].v, to[c].v);
  }
  for (; c < columns; ++c) {
    to[c] = {};
    for (std::int64_t r = 0; r < count; ++r) to[c].v[r] = from[r * stride + c];
  }
}
/// The reverse.
template <class T>
[[gnu::noinline]] void transpose_out(const Row<T>* __restrict from, std::int64_t columns,
                                     std::int64_t count, T* __restrict to, std::int64_t stride) {
  std::int64_t c = 0;
  for (; c + kWidth <= columns; c += kWidth) {
    Row<T> a[kWidth], b[kWidth];
    shuffle(from[c].v, a[0].v);
    shuffle(a[0].v, b[0].v);
    shuffle(b[0].v, a[0].v);
    shuffle(a[0].v, b[0].v);
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(b[r].v, kWidth, to + r * stride + c);
  }
  for (; c < columns; ++c) {
    for (std::int64_t r = 0; r < count; ++r) to[r * stride + c] = from[c].v[r];
  }
}

/// Replaces 16 rows by the 16 sums over each, in the first: neighbours are added until one number a
/// row is left.
template <class T>
void sum_rows(Row<T>* rows) {
  T* x = rows->v;
  for (int width = kWidth / 2; width >= 1; width /= 2) {
#pragma omp simd
    for (int j = 0; j < kWidth * width; ++j) x[j] = x[2 * j] + x[2 * j + 1];
  }
}

}  // namespace hax::ssd_tile
