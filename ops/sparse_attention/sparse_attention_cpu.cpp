#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/dispatch.h"
#include "ops/key_set/key_sweep.h"
#include "ops/sparse_attention/gather_rows.h"
#include "ops/sparse_attention/sparse_attention_kernels.h"
#include "ops/sparse_attention/uniform_rows.h"
#include "ops/vector_math.h"

namespace hax {
namespace {

// One number for each key of a row, in whole tiles so that loops over them have no remainder.
template <class T>
struct Row {
  T* entry;
  std::size_t count, size = tiles_for(count);  // keys, numbers

  void pad_with(T value) const { std::fill(entry + count, entry + size, value); }
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

// The rows wanted, as query positions of their sequences.
class WantedRows {
 public:
  WantedRows(const Sequences& sequences, const Tensor& rows)
      : sequences_(sequences),
        rows_(rows.defined() ? rows.data<std::int32_t>() : nullptr),
        count_(rows.defined() ? rows.numel() : sequences.tokens()) {}

  // Calls visit(s, first, last) for each sequence s with rows, which are first..last-1.
  template <class F>
  void for_each_sequence(F visit) const {
    std::int64_t r = 0;
    for (std::int64_t s = 0; s < sequences_.count() && r < count_; ++s) {
      const std::int64_t first = r;
      while (r < count_ && token(r) < sequences_.end(s)) ++r;
      if (r > first) visit(s, first, r);
    }
  }

  // Position of row r in sequence s.
  std::int32_t position(std::int64_t r, std::int64_t s) const {
    return static_cast<std::int32_t>(token(r) - sequences_.begin(s));
  }

 private:
  std::int64_t token(std::int64_t r) const { return rows_ != nullptr ? rows_[r] : r; }

  const Sequences& sequences_;
  const std::int32_t* rows_;
  std::int64_t count_;
};

// [rows, number of keys at most]: numbers of the keys of some rows. A Tensor for its alignment:
// tiles that straddle cache lines cost half as much again.
Tensor row_buffer(const Sequences& sequences, std::int64_t rows, DType dtype) {
  std::int64_t longest = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    longest = std::max(longest, sequences.length(s));
  }
  // One tile more: products of keys that are not shared are written from any place on.
  const auto room = static_cast<std::int64_t>(tiles_for(static_cast<std::size_t>(longest)) + kTile);
  return Tensor::empty({rows, room}, dtype);
}

}  // namespace

void sparse_attention_forward(Cpu, const Tensor& Q, const Tensor& K, const Tensor& V,
                              const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& y,
                              Tensor& softmax) {
  visit_float(Q.dtype(), [&]<class T>() {
    const std::int64_t states = Q.size(1), channels = V.size(1);
    Tensor weights = row_buffer(keys.sequences, 1, Q.dtype());
    const T* q = Q.data<T>();
    T *weight = weights.data<T>(), *out = y.data<T>(), *saved = softmax.data<T>();
    UniformRows<T> uniform(states, channels);
    KeySweep sweep(keys);
    const WantedRows wanted(keys.sequences, rows);
    wanted.for_each_sequence([&](std::int64_t s, std::int64_t first, std::int64_t last) {
      const T* k = K.data<T>() + keys.sequences.begin(s) * states;
      const T* v = V.data<T>() + keys.sequences.begin(s) * channels;
      sweep.enter(s);
      uniform.enter(k, v, keys.sequences.length(s), keys.sequences.padded(s));
      for (std::int64_t r = first; r < last; ++r) {
        const KeyList list = sweep.keys_of(wanted.position(r, s));
        T* result = out + r * channels;
        if (!list.empty()) {
          scores(q + r * states, k, states, list, weight);
          const Softmax<T> row = softmax_row(Row<T>{weight, list.size()});
          saved[2 * r] = row.largest;
          saved[2 * r + 1] = row.inverse_sum;
          weighted_sum(weight, v, channels, list, result);
        } else if (empty == EmptyRows::uniform) {
          uniform.forward(result);
        } else {
          std::fill_n(result, channels, T{0});
        }
      }
    });
  });
}

namespace {

// The backward of one sequence's rows, up to kTogether at a time.
template <class T>
class BackwardRows {
 public:
  BackwardRows(const Sequences& sequences, std::int64_t states, std::int64_t channels)
      : states_(states),
        channels_(channels),
        weights_(row_buffer(sequences, kTogether, dtype_of<T>)),
        dscores_(row_buffer(sequences, kTogether, dtype_of<T>)),
        uniform_(states, channels) {
    for (auto& list : list_) list.reserve(static_cast<std::size_t>(weights_.size(1)));
    for (std::size_t b = 0; b < kTogether; ++b) {
      weight_[b] = weights_.data<T>() + static_cast<std::int64_t>(b) * weights_.size(1);
      dscore_[b] = dscores_.data<T>() + static_cast<std::int64_t>(b) * dscores_.size(1);
    }
  }

  // The sequence's keys and values and their gradients.
  void enter(const T* K, const T* V, T* dK, T* dV, std::int64_t length, std::int64_t padded) {
    K_ = K;
    V_ = V;
    dK_ = dK;
    dV_ = dV;
    uniform_.enter(K, V, length, padded);
  }
  // Takes up row b: its keys, query and softmax.
  void take_up(std::size_t b, KeyList list, const T* q, Softmax<T> softmax) {
    list_[b].assign(list.begin(), list.end());
    if (list.empty()) return;
    scores(q, K_, states_, list, weight_[b]);
    softmax_again(softmax, Row<T>{weight_[b], list.size()});
  }
  // The lists of all kTogether rows begin with the same `shared` keys: their part of dV.
  void share(std::size_t shared, const T* dy) {
    shared_dots(dy, V_, channels_, KeyList(list_[0]).first(shared), dscore_, weight_, dV_);
  }
  // Everything else of row b.
  void finish(std::size_t b, std::size_t shared, const T* q, const T* dy, EmptyRows empty, T* dq) {
    const KeyList list = list_[b];
    if (!list.empty()) {
      T *weight = weight_[b], *dscore = dscore_[b];
      dots<true>(dy, V_, channels_, list.subspan(shared), dscore + shared, weight + shared, dV_);
      score_gradients(Row<T>{weight, list.size()}, Row<T>{dscore, list.size()});
      weighted_sum(dscore, K_, states_, list, dq);
      scatter(dscore, q, states_, list, dK_);
    } else if (empty == EmptyRows::uniform) {
      uniform_.backward(q, dy, dq);
    } else {
      std::fill_n(dq, states_, T{0});
    }
  }
  void leave() { uniform_.leave(dK_, dV_); }

 private:
  std::int64_t states_, channels_;
  const T *K_ = nullptr, *V_ = nullptr;
  T *dK_ = nullptr, *dV_ = nullptr;
  Tensor weights_, dscores_;
  T *weight_[kTogether], *dscore_[kTogether];
  std::vector<std::int32_t> list_[kTogether];
  UniformRows<T> uniform_;
};

}  // namespace

void sparse_attention_backward(Cpu, const Tensor& dy, const Tensor& Q, const Tensor& K,
                               const Tensor& V, const Tensor& softmax, const KeySet& keys,
                               const Tensor& rows, EmptyRows empty, Tensor& dQ, Tensor& dK,
                               Tensor& dV) {
  visit_float(Q.dtype(), [&]<class T>() {
    const std::int64_t states = Q.size(1), channels = V.size(1);
    const T *q = Q.data<T>(), *g = dy.data<T>(), *saved = softmax.data<T>();
    T* dq = dQ.data<T>();
    // Rows of dK and dV become zero shortly before the first query adds to them, not in a pass of
    // their own that would leave the cache again.
    std::int64_t zeroed = 0;
    const auto zero_up_to = [&](std::int64_t token) {
      if (token <= zeroed) return;
      std::fill(dK.data<T>() + zeroed * states, dK.data<T>() + token * states, T{0});
      std::fill(dV.data<T>() + zeroed * channels, dV.data<T>() + token * channels, T{0});
      zeroed = token;
    };
    BackwardRows<T> backward_rows(keys.sequences, states, channels);
    KeySweep sweep(keys);
    const WantedRows wanted(keys.sequences, rows);
    wanted.for_each_sequence([&](std::int64_t s, std::int64_t first, std::int64_t last) {
      const std::int64_t begin = keys.sequences.begin(s);
      sweep.enter(s);
      backward_rows.enter(K.data<T>() + begin * states, V.data<T>() + begin * channels,
                          dK.data<T>() + begin * states, dV.data<T>() + begin * channels,
                          keys.sequences.length(s), keys.sequences.padded(s));
      for (std::int64_t r = first, next; r < last; r = next) {
        next = std::min<std::int64_t>(r + kTogether, last);
        std::size_t shared = 0;
        if (next - r == kTogether) {
          shared = sweep.share(wanted.position(r, s), wanted.position(next - 1, s));
        }
        for (std::int64_t t = r; t < next; ++t) {
          backward_rows.take_up(static_cast<std::size_t>(t - r),
                                sweep.keys_of(wanted.position(t, s)), q + t * states,
                                {saved[2 * t], saved[2 * t + 1]});
        }
        zero_up_to(begin + wanted.position(next - 1, s) + 1);
        if (shared > 0) backward_rows.share(shared, g + r * channels);
        for (std::int64_t t = r; t < next; ++t) {
          backward_rows.finish(static_cast<std::size_t>(t - r), shared, q + t * states,
                               g + t * channels, empty, dq + t * states);
        }
      }
      zero_up_to(keys.sequences.end(s));  // what empty rows send reaches all of it
      backward_rows.leave();
    });
    zero_up_to(keys.sequences.tokens());
  });
}

}  // namespace hax
