#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "engine/dispatch.h"
#include "ops/key_set/key_sweep.h"
#include "ops/sparse_attention/sparse_attention_kernels.h"
#include "ops/sparse_attention/uniform_rows.h"

namespace hax {
namespace {

using KeyList = std::span<const std::int32_t>;

// exp of a score minus the largest of its row.
template <class T>
inline T weight_exp(T x) {
  return std::exp(x);
}

// A dot product runs over kLanes partial sums that stay in a register, and those of kTile keys are
// summed up together: one at a time the summing up would cost more than 16 features do.
constexpr std::int64_t kLanes = 16;
constexpr std::size_t kTile = 16;

template <class T>
class DotTile {
 public:
  // Dot product `slot` := x . m. With kAdd, in the same pass, d += w x.
  template <bool kAdd>
  void dot(std::size_t slot, const T* x, const T* m, std::int64_t dim, T w = 0, T* d = nullptr) {
    T sum[kLanes];
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
    T half[kLanes / 2];
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

// product[z] = x . M[list[z]]; whole tiles are written.
template <class T>
void dots(const T* x, const T* M, std::int64_t dim, KeyList list, T* product) {
  DotTile<T> tile;
  for (std::size_t first = 0; first < list.size(); first += kTile) {
    const std::size_t count = std::min(kTile, list.size() - first);
    for (std::size_t z = 0; z < count; ++z) {
      tile.template dot<false>(z, x, M + list[first + z] * dim, dim);
    }
    tile.finish(product + first);
  }
}

// The same, and dM[list[z]] += weight[z] x.
template <class T>
void dots_and_scatter(const T* x, const T* M, const T* weight, std::int64_t dim, KeyList list,
                      T* product, T* dM) {
  DotTile<T> tile;
  for (std::size_t first = 0; first < list.size(); first += kTile) {
    const std::size_t count = std::min(kTile, list.size() - first);
    for (std::size_t z = 0; z < count; ++z) {
      const std::int64_t row = list[first + z] * dim;
      tile.template dot<true>(z, x, M + row, dim, weight[first + z], dM + row);
    }
    tile.finish(product + first);
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

// One number for each key of a row, in whole tiles so that loops over them have no remainder.
template <class T>
struct Row {
  T* entry;
  std::size_t count, size = tiles_for(count);  // keys, numbers

  void pad_with(T value) const { std::fill(entry + count, entry + size, value); }
};

// at(0), ..., at(size - 1) combined, over kLanes interleaved parts and then over halves of these.
template <class T, class At, class Combine>
T reduce(std::size_t size, At at, Combine combine) {
  alignas(64) T lane[kLanes];
#pragma omp simd
  for (std::size_t l = 0; l < kLanes; ++l) lane[l] = at(l);
  for (std::size_t z = kLanes; z < size; z += kLanes) {
#pragma omp simd
    for (std::size_t l = 0; l < kLanes; ++l) lane[l] = combine(lane[l], at(z + l));
  }
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t l = 0; l < half; ++l) lane[l] = combine(lane[l], lane[l + half]);
  }
  return lane[0];
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

// exp(entry - largest); 0 beyond the keys.
template <class T>
void exponentials(Row<T> row, T largest) {
  row.pad_with(largest);
#pragma omp simd
  for (std::size_t z = 0; z < row.size; ++z) row.entry[z] = weight_exp(row.entry[z] - largest);
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

// Calls enter(s) for each sequence with rows wanted, visit(r, list) for each of its rows, and
// leave(s).
template <class Enter, class Visit, class Leave>
void sweep_rows(const KeySet& keys, const Tensor& rows, Enter enter, Visit visit, Leave leave) {
  const std::int32_t* wanted = rows.defined() ? rows.data<std::int32_t>() : nullptr;
  const std::int64_t count = rows.defined() ? rows.numel() : keys.sequences.tokens();
  KeySweep sweep(keys);
  std::int64_t r = 0;
  for (std::int64_t s = 0; s < keys.sequences.count() && r < count; ++s) {
    const std::int64_t begin = keys.sequences.begin(s), end = keys.sequences.end(s);
    const auto row = [&] { return wanted != nullptr ? wanted[r] : r; };
    if (row() >= end) continue;
    sweep.enter(s);
    enter(s);
    for (; r < count && row() < end; ++r) {
      visit(r, sweep.keys_of(static_cast<std::int32_t>(row() - begin)));
    }
    leave(s);
  }
}

std::size_t longest(const Sequences& sequences) {
  std::int64_t length = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    length = std::max(length, sequences.length(s));
  }
  return static_cast<std::size_t>(length);
}

}  // namespace

void sparse_attention_forward(Cpu, const Tensor& Q, const Tensor& K, const Tensor& V,
                              const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& y,
                              Tensor& softmax) {
  visit_float(Q.dtype(), [&]<class T>() {
    const std::int64_t states = Q.size(1), channels = V.size(1);
    const T *q = Q.data<T>(), *k = nullptr, *v = nullptr;  // keys and values of the sequence
    T *out = y.data<T>(), *saved = softmax.data<T>();
    std::vector<T> weight(tiles_for(longest(keys.sequences)));
    UniformRows<T> uniform(states, channels);
    const auto enter = [&](std::int64_t s) {
      k = K.data<T>() + keys.sequences.begin(s) * states;
      v = V.data<T>() + keys.sequences.begin(s) * channels;
      uniform.enter(k, v, keys.sequences.length(s), keys.sequences.padded(s));
    };
    const auto visit = [&](std::int64_t r, KeyList list) {
      if (!list.empty()) {
        dots(q + r * states, k, states, list, weight.data());
        const Softmax<T> row = softmax_row(Row<T>{weight.data(), list.size()});
        saved[2 * r] = row.largest;
        saved[2 * r + 1] = row.inverse_sum;
        weighted_sum(weight.data(), v, channels, list, out + r * channels);
      } else if (empty == EmptyRows::uniform) {
        uniform.forward(out + r * channels);
      } else {
        std::fill_n(out + r * channels, channels, T{0});
      }
    };
    sweep_rows(keys, rows, enter, visit, [](std::int64_t) {});
  });
}

void sparse_attention_backward(Cpu, const Tensor& dy, const Tensor& Q, const Tensor& K,
                               const Tensor& V, const Tensor& y, const Tensor& softmax,
                               const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& dQ,
                               Tensor& dK, Tensor& dV) {
  fill(dK, 0);
  fill(dV, 0);
  visit_float(Q.dtype(), [&]<class T>() {
    const std::int64_t states = Q.size(1), channels = V.size(1);
    const T *k = nullptr, *v = nullptr, *saved = softmax.data<T>();
    T *dk = nullptr, *dv = nullptr;
    std::vector<T> weight(tiles_for(longest(keys.sequences))), dscore(weight.size());
    UniformRows<T> uniform(states, channels);
    const auto enter = [&](std::int64_t s) {
      const std::int64_t begin = keys.sequences.begin(s);
      k = K.data<T>() + begin * states;
      v = V.data<T>() + begin * channels;
      dk = dK.data<T>() + begin * states;
      dv = dV.data<T>() + begin * channels;
      uniform.enter(k, v, keys.sequences.length(s), keys.sequences.padded(s));
    };
    const auto visit = [&](std::int64_t r, KeyList list) {
      const T* q = Q.data<T>() + r * states;
      const T *g = dy.data<T>() + r * channels, *out = y.data<T>() + r * channels;
      T* dq = dQ.data<T>() + r * states;
      if (!list.empty()) {
        dots(q, k, states, list, weight.data());
        const Row<T> weights{weight.data(), list.size()}, dscores{dscore.data(), list.size()};
        softmax_again({saved[2 * r], saved[2 * r + 1]}, weights);
        dots_and_scatter(g, v, weight.data(), channels, list, dscore.data(), dv);
        score_gradients(weights, dscores);
        weighted_sum(dscore.data(), k, states, list, dq);
        scatter(dscore.data(), q, states, list, dk);
      } else if (empty == EmptyRows::uniform) {
        uniform.backward(q, out, g, dq);
      } else {
        std::fill_n(dq, states, T{0});
      }
    };
    sweep_rows(keys, rows, enter, visit, [&](std::int64_t) { uniform.leave(dk, dv); });
  });
}

}  // namespace hax
