// Products with rows gathered from a matrix: the arithmetic of sparse_attention on the CPU. M is
// [L, dim], a list holds rows of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace hax {

using KeyList = std::span<const std::int32_t>;

// A dot product runs over kLanes partial sums that stay in a register, and those of kTile keys are
// summed up together: one at a time the summing up would cost more than 16 features do.
constexpr std::int64_t kLanes = 16;
constexpr std::size_t kTile = 16;
// Rows whose shared keys the backward handles together.
constexpr std::size_t kTogether = 4;

template <class T>
class DotTile {
 public:
  // Dot product `slot` := the sum of `sum`.
  void set(std::size_t slot, const T (&sum)[kLanes]) {
    alignas(64) T half[kLanes / 2];
#pragma omp simd
    for (int l = 0; l < 8; ++l) half[l] = sum[l] + sum[l + 8];
#pragma omp simd
    for (int l = 0; l < 4; ++l) quarter_[slot][l] = half[l] + half[l + 4];
  }

  // All kTile dot products; those that were not set have no meaning.
  void finish(T* out) const {
#pragma omp simd
    for (std::size_t k = 0; k < kTile; ++k) {
      const T* q = quarter_[k];
      out[k] = (q[0] + q[1]) + (q[2] + q[3]);
    }
  }

 private:
  alignas(64) T quarter_[kTile][4] = {};
};

// Room for one number a key in whole tiles.
std::size_t tiles_for(std::size_t keys) { return (keys + kTile - 1) / kTile * kTile; }

// Row of M of the z-th key; of the last key beyond the end.
template <class T>
const T* row_of(const T* M, std::int64_t dim, KeyList list, std::size_t z) {
  return M + list[std::min(z, list.size() - 1)] * dim;
}

// Dot product `slot` of the tile := x . m. With kAdd, in the same pass, d += w x.
template <bool kAdd, class T>
void dot(DotTile<T>& tile, std::size_t slot, const T* x, const T* m, std::int64_t dim, T w = 0,
         T* d = nullptr) {
  alignas(64) T sum[kLanes];
  const std::int64_t whole = dim / kLanes * kLanes;
#pragma omp simd
  for (std::int64_t l = 0; l < kLanes; ++l) {
    sum[l] = whole > 0 ? x[l] * m[l] : T{0};
    if (kAdd && whole > 0) d[l] += w * x[l];
  }
  for (std::int64_t n = kLanes; n < whole; n += kLanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < kLanes; ++l) {
      sum[l] += x[n + l] * m[n + l];
      if (kAdd) d[n + l] += w * x[n + l];
    }
  }
  for (std::int64_t n = whole; n < dim; ++n) {
    sum[n - whole] += x[n] * m[n];
    if (kAdd) d[n] += w * x[n];
  }
  tile.set(slot, sum);
}

// product[z] = x . M[list[z]], and with kScatter, in the same pass, dM[list[z]] += weight[z] x.
// Whole tiles of products are written.
template <bool kScatter, class T>
void dots(const T* x, const T* M, std::int64_t dim, KeyList list, T* product,
          const T* weight = nullptr, T* dM = nullptr) {
  DotTile<T> tile;
  for (std::size_t first = 0; first < list.size(); first += kTile) {
    const std::size_t count = std::min(kTile, list.size() - first);
    for (std::size_t slot = 0; slot < count; ++slot) {
      const std::int64_t row = list[first + slot] * dim;
      if constexpr (kScatter) {
        dot<true>(tile, slot, x, M + row, dim, weight[first + slot], dM + row);
      } else {
        dot<false>(tile, slot, x, M + row, dim);
      }
    }
    tile.finish(product + first);
  }
}

// The same for keys that kTogether rows share: x is [kTogether, dim], row b has product[b] and
// weight[b]. M and dM pass through the processor once instead of kTogether times.
template <class T>
void shared_dots(const T* x, const T* M, std::int64_t dim, KeyList list, T* const* product,
                 const T* const* weight, T* dM) {
  static_assert(kTogether == 4);
  const T *x0 = x, *x1 = x + dim, *x2 = x + 2 * dim, *x3 = x + 3 * dim;
  const std::int64_t whole = dim / kLanes * kLanes;
  DotTile<T> tile[kTogether];
  for (std::size_t first = 0; first < list.size(); first += kTile) {
    const std::size_t count = std::min(kTile, list.size() - first);
    for (std::size_t slot = 0; slot < count; ++slot) {
      const std::size_t z = first + slot;
      const T* m = M + list[z] * dim;
      T* d = dM + list[z] * dim;
      const T w0 = weight[0][z], w1 = weight[1][z], w2 = weight[2][z], w3 = weight[3][z];
      alignas(64) T s0[kLanes] = {}, s1[kLanes] = {}, s2[kLanes] = {}, s3[kLanes] = {};
      for (std::int64_t n = 0; n < whole; n += kLanes) {
#pragma omp simd
        for (std::int64_t l = 0; l < kLanes; ++l) {
          const std::int64_t e = n + l;
          s0[l] += x0[e] * m[e];
          s1[l] += x1[e] * m[e];
          s2[l] += x2[e] * m[e];
          s3[l] += x3[e] * m[e];
          d[e] = d[e] + w0 * x0[e] + w1 * x1[e] + w2 * x2[e] + w3 * x3[e];
        }
      }
      for (std::int64_t e = whole; e < dim; ++e) {
        s0[e - whole] += x0[e] * m[e];
        s1[e - whole] += x1[e] * m[e];
        s2[e - whole] += x2[e] * m[e];
        s3[e - whole] += x3[e] * m[e];
        d[e] = d[e] + w0 * x0[e] + w1 * x1[e] + w2 * x2[e] + w3 * x3[e];
      }
      tile[0].set(slot, s0);
      tile[1].set(slot, s1);
      tile[2].set(slot, s2);
      tile[3].set(slot, s3);
    }
    for (std::size_t b = 0; b < kTogether; ++b) tile[b].finish(product[b] + first);
  }
}

// y = sum_z weight[z] M[list[z]], where the weights are 0 up to the end of the tile.
template <class T>
void weighted_sum(const T* weight, const T* M, std::int64_t dim, KeyList list, T* y) {
  std::fill_n(y, dim, T{0});
  for (std::size_t z = 0; z < list.size(); z += 8) {
    const T *m0 = row_of(M, dim, list, z), *m1 = row_of(M, dim, list, z + 1);
    const T *m2 = row_of(M, dim, list, z + 2), *m3 = row_of(M, dim, list, z + 3);
    const T *m4 = row_of(M, dim, list, z + 4), *m5 = row_of(M, dim, list, z + 5);
    const T *m6 = row_of(M, dim, list, z + 6), *m7 = row_of(M, dim, list, z + 7);
    const T w0 = weight[z], w1 = weight[z + 1], w2 = weight[z + 2], w3 = weight[z + 3];
    const T w4 = weight[z + 4], w5 = weight[z + 5], w6 = weight[z + 6], w7 = weight[z + 7];
#pragma omp simd
    for (std::int64_t e = 0; e < dim; ++e) {
      y[e] = y[e] + w0 * m0[e] + w1 * m1[e] + w2 * m2[e] + w3 * m3[e] + w4 * m4[e] + w5 * m5[e] +
             w6 * m6[e] + w7 * m7[e];
    }
  }
}

// M[list[z]] += weight[z] x
template <class T>
void scatter(const T* weight, const T* x, std::int64_t dim, KeyList list, T* M) {
  std::size_t z = 0;
  for (; z + 4 <= list.size(); z += 4) {
    T *m0 = M + list[z] * dim, *m1 = M + list[z + 1] * dim;
    T *m2 = M + list[z + 2] * dim, *m3 = M + list[z + 3] * dim;
    const T w0 = weight[z], w1 = weight[z + 1], w2 = weight[z + 2], w3 = weight[z + 3];
#pragma omp simd
    for (std::int64_t e = 0; e < dim; ++e) {
      m0[e] += w0 * x[e];
      m1[e] += w1 * x[e];
      m2[e] += w2 * x[e];
      m3[e] += w3 * x[e];
    }
  }
  for (; z < list.size(); ++z) {
    T* m = M + list[z] * dim;
    const T w = weight[z];
#pragma omp simd
    for (std::int64_t e = 0; e < dim; ++e) m[e] += w * x[e];
  }
}

}  // namespace hax
