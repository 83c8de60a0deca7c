// Products with rows gathered from a matrix: the arithmetic of sparse_attention on the CPU. M is
// [L, dim], a list holds rows of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

namespace hax {

using KeyList = std::span<const std::int32_t>;

// Where the gradient of a key's row is summed up: for keys from `first` on in the result, for older
// ones in a buffer that some of the queries have for themselves.
template <class T>
struct GradientRows {
  T* result = nullptr;  // [L, dim]
  std::int32_t first = 0;
  T* older = nullptr;                  // [keys, dim]
  const std::int32_t* slot = nullptr;  // of key j in `older`

  T* row(std::int32_t key, std::int64_t dim) const {
    return key >= first ? result + key * dim : older + slot[key] * dim;
  }
};

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

// 64 bytes of numbers as they lie in memory, at any address.
template <class T>
using Pack [[gnu::vector_size(64), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
template <class T>
constexpr std::int64_t kPackSize = 64 / static_cast<std::int64_t>(sizeof(T));

// The number of features as a constant, which leaves no loops in a dot product.
template <std::int64_t kDim>
using Fixed = std::integral_constant<std::int64_t, kDim>;

// Dot product `slot` of the tile := x . m. With kAdd, in the same pass, d += w x. Dim is an integer
// or Fixed.
template <bool kAdd, class T, class Dim>
void dot(DotTile<T>& tile, std::size_t slot, const T* x, const T* m, Dim dim, T w = 0,
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
template <bool kScatter, class T, class Dim>
void dots(const T* x, const T* M, Dim dim, KeyList list, T* product, const T* weight = nullptr,
          const GradientRows<T>& dM = {}) {
  DotTile<T> tile;
  for (std::size_t first = 0; first < list.size(); first += kTile) {
    const std::size_t count = std::min(kTile, list.size() - first);
    for (std::size_t slot = 0; slot < count; ++slot) {
      const std::int32_t key = list[first + slot];
      const T* row = M + key * dim;
      if constexpr (kScatter) {
        dot<true>(tile, slot, x, row, dim, weight[first + slot], dM.row(key, dim));
      } else {
        dot<false>(tile, slot, x, row, dim);
      }
    }
    tile.finish(product + first);
  }
}

// The same for keys that kTogether rows share: row b has x[b] [dim], product[b] and weight[b]. M
// and dM pass through the processor once instead of kTogether times.
template <class T>
void shared_dots(const T* const* x, const T* M, std::int64_t dim, KeyList list, T* const* product,
                 const T* const* weight, const GradientRows<T>& dM) {
  static_assert(kTogether == 4);
  const T *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
  const std::int64_t whole = dim / kLanes * kLanes;
  DotTile<T> tile[kTogether];
  for (std::size_t first = 0; first < list.size(); first += kTile) {
    const std::size_t count = std::min(kTile, list.size() - first);
    for (std::size_t slot = 0; slot < count; ++slot) {
      const std::size_t z = first + slot;
      const T* m = M + list[z] * dim;
      T* d = dM.row(list[z], dim);
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

// kPacks packs of y = sum_z weight[z] M[list[z]], kept in registers. Where they are too few to hide
// the latency of their sums, kWays keys go side by side.
template <int kPacks, int kWays, class T>
void weighted_packs(const T* weight, const T* M, std::int64_t dim, KeyList list, T* y) {
  Pack<T> sum[kWays][kPacks] = {};
  const auto add = [&](std::size_t z, Pack<T>(&to)[kPacks]) {
    const auto* m = reinterpret_cast<const Pack<T>*>(M + list[z] * dim);
    for (int p = 0; p < kPacks; ++p) to[p] += weight[z] * m[p];
  };
  std::size_t z = 0;
  for (; z + kWays <= list.size(); z += kWays) {
    for (std::size_t w = 0; w < kWays; ++w) add(z + w, sum[w]);
  }
  for (; z < list.size(); ++z) add(z, sum[0]);
  auto* out = reinterpret_cast<Pack<T>*>(y);
  for (int p = 0; p < kPacks; ++p) {
    for (int w = 1; w < kWays; ++w) sum[0][p] += sum[w][p];
    out[p] = sum[0][p];
  }
}

// y = sum_z weight[z] M[list[z]]
template <class T>
void weighted_sum(const T* weight, const T* M, std::int64_t dim, KeyList list, T* y) {
  constexpr std::int64_t kPack = kPackSize<T>;
  std::int64_t e = 0;
  for (; e + 8 * kPack <= dim; e += 8 * kPack) {
    weighted_packs<8, 1>(weight, M + e, dim, list, y + e);
  }
  for (; e + 2 * kPack <= dim; e += 2 * kPack) {
    weighted_packs<2, 4>(weight, M + e, dim, list, y + e);
  }
  for (; e + kPack <= dim; e += kPack) weighted_packs<1, 8>(weight, M + e, dim, list, y + e);
  if (e == dim) return;
  std::fill(y + e, y + dim, T{0});
  for (std::size_t z = 0; z < list.size(); ++z) {
    const T* m = M + list[z] * dim;
#pragma omp simd
    for (std::int64_t rest = e; rest < dim; ++rest) y[rest] += weight[z] * m[rest];
  }
}

// Row list[z] of dM += weight[z] x
template <class T>
void scatter(const T* weight, const T* x, std::int64_t dim, KeyList list,
             const GradientRows<T>& dM) {
  std::size_t z = 0;
  for (; z + 4 <= list.size(); z += 4) {
    T *m0 = dM.row(list[z], dim), *m1 = dM.row(list[z + 1], dim);
    T *m2 = dM.row(list[z + 2], dim), *m3 = dM.row(list[z + 3], dim);
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
    T* m = dM.row(list[z], dim);
    const T w = weight[z];
#pragma omp simd
    for (std::int64_t e = 0; e < dim; ++e) m[e] += w * x[e];
  }
}

}  // namespace hax
