// The two ideas that full_attention_cpu.cpp is built from: which pairs of a tile of queries and a
// tile of keys are visible, and one small product that sums over exactly those pairs.
//
// Every number of a result is summed over its own pairs in ascending order, whatever tile, block or
// row set it is computed in: a masked key never enters a sum (not even as 0 times NaN), and asking
// for fewer rows or appending tokens changes no bit.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "engine/check.h"
#include "engine/sequences.h"

namespace hax::full_attention_tiles {

inline constexpr std::int64_t kTile = 64;    // queries, and keys, of a tile
inline constexpr std::int64_t kNarrow = 16;  // columns of products come in multiples of this

inline std::int64_t round_up(std::int64_t count) {
  return (count + kNarrow - 1) / kNarrow * kNarrow;
}

struct Range {
  std::int64_t begin = 0, end = 0;

  bool operator==(const Range&) const = default;
};
using Ranges = std::array<Range, kTile>;

// ---------------------------------------------------------------------------------- visibility

// Up to kTile wanted rows of one sequence, ascending.
struct QueryTile {
  std::int64_t first = 0, count = 0;                  // rows of Q
  std::int64_t sequence_begin = 0, sequence_len = 0;  // pack rows of the sequence
  std::array<std::int32_t, kTile> position{};         // within the sequence; -1 after `count`
};

// What a query tile sees of the keys first..first+count: query row r sees key j iff
// position_r - window < j <= position_r.
struct KeyTile {
  std::int64_t first = 0, count = 0;
  Range rows;         // of the query tile: those that see any of the keys
  Range lanes;        // `rows` rounded outwards to multiples of kNarrow
  bool full = false;  // every lane that holds a query sees every key
};

// Calls f(QueryTile) for the wanted rows (pack rows; null: all), sequence by sequence.
template <class F>
void for_each_query_tile(const Sequences& sequences, const std::int32_t* rows, std::int64_t count,
                         F&& f) {
  std::int64_t row = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    QueryTile tile;
    tile.sequence_begin = sequences.begin(s);
    tile.sequence_len = sequences.length(s);
    const auto pack_row = [&](std::int64_t r) { return rows ? rows[r] : r; };
    while (row < count && pack_row(row) < sequences.end(s)) {
      tile.first = row;
      tile.position.fill(-1);
      tile.count = 0;
      for (; tile.count < kTile && row < count && pack_row(row) < sequences.end(s); ++row) {
        tile.position[static_cast<std::size_t>(tile.count++)] =
            static_cast<std::int32_t>(pack_row(row) - tile.sequence_begin);
      }
      f(tile);
    }
  }
}

// Calls f(KeyTile) for every tile of keys that some query of the tile sees, in ascending order.
template <class F>
void for_each_key_tile(const QueryTile& queries, std::int64_t window, F&& f) {
  const std::int32_t* begin = queries.position.data();
  const std::int32_t* end = begin + queries.count;
  const auto first_at_or_after = [&](std::int64_t position) {
    return std::lower_bound(begin, end, position) - begin;
  };
  const std::int64_t oldest = std::max<std::int64_t>(0, begin[0] - window + 1), newest = end[-1];
  for (std::int64_t key = oldest / kTile * kTile; key <= newest; key += kTile) {
    KeyTile keys;
    keys.first = key;
    keys.count = std::min(kTile, queries.sequence_len - key);
    const std::int64_t last = key + keys.count - 1;
    keys.rows = {first_at_or_after(key), first_at_or_after(last + window)};
    if (keys.rows.begin == keys.rows.end) continue;
    keys.lanes = {keys.rows.begin / kNarrow * kNarrow, round_up(keys.rows.end)};
    keys.full = keys.rows.begin == keys.lanes.begin &&
                (keys.rows.end == keys.lanes.end || keys.rows.end == queries.count) &&
                begin[keys.rows.begin] >= last && begin[keys.rows.end - 1] - window < key;
    f(keys);
  }
}

// For each row of keys.rows, the keys it sees, counted from keys.first.
inline void keys_of_rows(const QueryTile& queries, const KeyTile& keys, std::int64_t window,
                         Ranges& ranges) {
  for (std::int64_t r = keys.rows.begin; r < keys.rows.end; ++r) {
    const std::int64_t position = queries.position[static_cast<std::size_t>(r)] - keys.first;
    ranges[static_cast<std::size_t>(r)] = {std::max<std::int64_t>(0, position - window + 1),
                                           std::min(keys.count, position + 1)};
  }
}

// For each key, the rows of the query tile that see it. Possibly none.
inline void rows_of_keys(const QueryTile& queries, const KeyTile& keys, std::int64_t window,
                         Ranges& ranges) {
  Range seen{keys.rows.begin, keys.rows.begin};
  for (std::int64_t j = 0; j < keys.count; ++j) {
    const std::int64_t key = keys.first + j;
    const auto position = [&](std::int64_t r) {
      return queries.position[static_cast<std::size_t>(r)];
    };
    while (seen.begin < keys.rows.end && position(seen.begin) < key) ++seen.begin;
    while (seen.end < keys.rows.end && position(seen.end) < key + window) ++seen.end;
    ranges[static_cast<std::size_t>(j)] = {seen.begin, std::max(seen.begin, seen.end)};
  }
}

// ------------------------------------------------------------------------------------- product

// Element (i, k) lies at data[i * row + k * column].
template <class T>
struct Strided {
  const T* data;
  std::int64_t row, column;
};

// out[i][w] (+)= sum over k of a(i, k) x[k][w], for Rows x Width numbers held in registers.
template <int Rows, int Width, bool Add, class T>
void multiply_block(Strided<T> a, Range k_range, const T* x, std::int64_t x_stride, T* out,
                    std::int64_t out_stride) {
  T sum[Rows][Width];
  for (int i = 0; i < Rows; ++i) {
    for (int w = 0; w < Width; ++w) sum[i][w] = Add ? out[i * out_stride + w] : T{0};
  }
  for (std::int64_t k = k_range.begin; k < k_range.end; ++k) {
    const T* in = x + k * x_stride;
    for (int i = 0; i < Rows; ++i) {
      const T factor = a.data[i * a.row + k * a.column];
#pragma omp simd
      for (int w = 0; w < Width; ++w) sum[i][w] += factor * in[w];
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int w = 0; w < Width; ++w) out[i * out_stride + w] = sum[i][w];
  }
}

// One strip of Width columns. Neighbouring rows share the loads of x where their ranges overlap.
template <int Rows, int Width, class T>
void multiply_strip(Strided<T> a, const Range* ranges, std::int64_t rows, const T* x,
                    std::int64_t x_stride, T* out, std::int64_t out_stride) {
  for (std::int64_t first = 0; first < rows; first += Rows) {
    const std::int64_t last = std::min(first + Rows, rows);
    Range shared = ranges[first];
    bool equal = true;
    for (std::int64_t i = first + 1; i < last; ++i) {
      equal = equal && ranges[i] == ranges[first];
      shared.begin = std::max(shared.begin, ranges[i].begin);
      shared.end = std::min(shared.end, ranges[i].end);
    }
    const Strided<T> block{a.data + first * a.row, a.row, a.column};
    T* to = out + first * out_stride;
    if (last - first == Rows && equal) {
      multiply_block<Rows, Width, false>(block, shared, x, x_stride, to, out_stride);
      continue;
    }
    const bool together = last - first == Rows && shared.begin < shared.end;
    const auto row = [&](std::int64_t i) {
      return Strided<T>{a.data + i * a.row, a.row, a.column};
    };
    for (std::int64_t i = first; i < last; ++i) {
      const Range before{ranges[i].begin, together ? shared.begin : ranges[i].end};
      multiply_block<1, Width, false>(row(i), before, x, x_stride, out + i * out_stride,
                                      out_stride);
    }
    if (!together) continue;
    multiply_block<Rows, Width, true>(block, shared, x, x_stride, to, out_stride);
    for (std::int64_t i = first; i < last; ++i) {
      const Range after{shared.end, ranges[i].end};
      if (after.begin == after.end) continue;
      multiply_block<1, Width, true>(row(i), after, x, x_stride, out + i * out_stride, out_stride);
    }
  }
}

// out[i][0..columns) = sum over k in ranges[i] of a(i, k) x[k][0..columns), k ascending. `columns`
// is a multiple of kNarrow.
template <class T>
void multiply(Strided<T> a, const Range* ranges, std::int64_t rows, const T* x,
              std::int64_t x_stride, std::int64_t columns, T* out, std::int64_t out_stride) {
  constexpr int kWide = 64;
  std::int64_t c = 0;
  for (; c + kWide <= columns; c += kWide) {
    multiply_strip<4, kWide>(a, ranges, rows, x + c, x_stride, out + c, out_stride);
  }
  for (; c < columns; c += kNarrow) {
    multiply_strip<8, kNarrow>(a, ranges, rows, x + c, x_stride, out + c, out_stride);
  }
}

}  // namespace hax::full_attention_tiles
