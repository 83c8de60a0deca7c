// The softmax of one query's scores and its backward, over whole tiles of keys. Included by
// sparse_attention_cpu.cpp alone.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/sparse_attention/gather_rows.h"
#include "ops/vector_math.h"

namespace hax {

// One number for each key of a row, in whole tiles so that loops over them have no remainder.
template <class T>
struct Row {
  T* entry;
  std::size_t count, size = tiles_for(count);  // keys, numbers

  void pad_with(T value) const { std::fill(entry + count, entry + size, value); }
};

// Room for a Row that grows with the longest list met: far fewer keys than there are tokens,
// mostly. Aligned, since tiles that straddle cache lines cost half as much again; not a Tensor,
// since what a step asks of the pool must not depend on the numbers it computes
// (train/step_memory.h).
template <class T>
class RowBuffer {
 public:
  T* fit(std::size_t keys) {
    // One tile more: products of keys that are not shared are written from any place on.
    const std::size_t tiles = tiles_for(keys) / kTile + 1;
    if (tiles > tiles_.size()) tiles_.resize(tiles + tiles / 2);
    return data();
  }
  T* data() { return tiles_.empty() ? nullptr : tiles_.front().entry; }

 private:
  struct alignas(64) Tile {
    T entry[kTile];
  };
  std::vector<Tile> tiles_;
};

// at(0), ..., at(size - 1) combined, over kLanes interleaved parts first.
template <class T, class At, class Combine>
T reduce(std::size_t size, At at, Combine combine) {
  alignas(64) T lane[kLanes];
#pragma omp simd
  for (std::size_t l = 0; l < kLanes; ++l) lane[l] = at(l);
  for (std::size_t z = kLanes; z < size; z += kLanes) {
#pragma omp simd
    for (std::size_t l = 0; l < kLanes; ++l) lane[l] = combine(lane[l], at(z + l));
  }
#pragma omp simd
  for (int l = 0; l < 8; ++l) lane[l] = combine(lane[l], lane[l + 8]);
#pragma omp simd
  for (int l = 0; l < 4; ++l) lane[l] = combine(lane[l], lane[l + 4]);
  return combine(combine(lane[0], lane[1]), combine(lane[2], lane[3]));
}

template <class T, class At>
T sum_of(std::size_t size, At at) {
  return reduce<T>(size, at, [](T a, T b) { return a + b; });
}

// What turns the scores of a row into weights: exp(score - largest) * inverse_sum.
template <class T>
struct Softmax {
  T largest, inverse_sum;
};

// score[z] = q . K[list[z]]. Sixteen states are what the paper's models have.
template <class T>
void scores(const T* q, const T* K, std::int64_t states, KeyList list, T* score) {
  if (states == 16) {
    dots<false>(q, K, Fixed<16>{}, list, score);
  } else {
    dots<false>(q, K, states, list, score);
  }
}

// exp(entry - largest); 0 beyond the keys.
template <class T>
void exponentials(Row<T> row, T largest) {
  row.pad_with(largest);
#pragma omp simd
  for (std::size_t z = 0; z < row.size; ++z) row.entry[z] = fast_exp(row.entry[z] - largest);
  row.pad_with(0);
}

template <class T>
void scale(Row<T> row, T factor) {
#pragma omp simd
  for (std::size_t z = 0; z < row.size; ++z) row.entry[z] *= factor;
}

// Scores to weights.
template <class T>
Softmax<T> softmax_row(Row<T> row) {
  row.pad_with(row.entry[0]);
  const auto entry = [=](std::size_t z) { return row.entry[z]; };
  const T largest = reduce<T>(row.size, entry, [](T a, T b) { return a > b ? a : b; });
  exponentials(row, largest);
  const T inverse_sum = 1 / sum_of<T>(row.size, entry);
  scale(row, inverse_sum);
  return {largest, inverse_sum};
}

// The same weights once more from what the forward saved.
template <class T>
void softmax_again(Softmax<T> softmax, Row<T> row) {
  exponentials(row, softmax.largest);
  scale(row, softmax.inverse_sum);
}

// dscore: d loss / d weight on entry, d loss / d score on return.
template <class T>
void score_gradients(Row<T> weight, Row<T> dscore) {
  dscore.pad_with(0);
  const auto weighted = [=](std::size_t z) { return weight.entry[z] * dscore.entry[z]; };
  const T mean = sum_of<T>(dscore.size, weighted);
#pragma omp simd
  for (std::size_t z = 0; z < dscore.size; ++z) {
    dscore.entry[z] = weight.entry[z] * (dscore.entry[z] - mean);
  }
}

}  // namespace hax
