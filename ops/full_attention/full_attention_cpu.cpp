#include <cmath>
#include <limits>

#include "engine/dispatch.h"
#include "ops/full_attention/full_attention_kernels.h"
#include "ops/full_attention/full_attention_tiles.h"
#include "ops/vector_math.h"

namespace hax {
namespace {

using namespace full_attention_tiles;

// Sizes and the places of a head's columns.
struct Heads {
  Heads(const Tensor& Q, const Tensor& V, const FullAttentionOptions& options)
      : heads(options.heads),
        kv_heads(options.kv_heads),
        dim(Q.size(1) / heads),
        value_dim(V.size(1) / kv_heads),
        q_stride(Q.size(1)),
        k_stride(kv_heads * dim),
        v_stride(V.size(1)),
        y_stride(heads * value_dim) {
    whole_row.fill({0, dim});
    whole_value.fill({0, value_dim});
  }

  std::int64_t kv_head(std::int64_t head) const { return head / (heads / kv_heads); }

  std::int64_t heads, kv_heads, dim, value_dim;
  std::int64_t q_stride, k_stride, v_stride, y_stride;
  Ranges whole_row, whole_value;  // sums over all of a key, all of a value
};

// Working memory of one tile, cut out of one tensor.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count) : memory_(Tensor::empty({count}, dtype_of<T>)) {}
  T* take(std::int64_t count) {
    Tensor taken = memory_.rows(used_, used_ + count);  // throws when there is not enough left
    used_ += count;
    return taken.data<T>();
  }

 private:
  Tensor memory_;
  std::int64_t used_ = 0;
};

void check_rows(const Tensor& rows, std::int64_t tokens) {
  if (!rows) return;
  std::int64_t before = -1;
  const std::int32_t* row = rows.data<std::int32_t>();
  for (std::int64_t r = 0; r < rows.numel(); ++r) {
    check(before < row[r] && row[r] < tokens,
          "full_attention: rows[{}] is {}, expected increasing rows of 0..{}", r, row[r],
          tokens - 1);
    before = row[r];
  }
}

std::int64_t window_of(const FullAttentionOptions& options, const QueryTile& tile) {
  return std::min(options.window.value_or(tile.sequence_len), tile.sequence_len);
}

// to[r][0..round_up(dim)) = factor from[r], zeros after dim.
template <class T>
void copy_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, T factor,
               T* to) {
  const std::int64_t width = round_up(dim);
  for (std::int64_t r = 0; r < rows; ++r, from += stride, to += width) {
    for (std::int64_t d = 0; d < dim; ++d) to[d] = from[d] * factor;
    std::fill(to + dim, to + width, T{0});
  }
}

// to[d][r] = factor from[r][d]: rows become lanes; lanes without a row are zero.
template <class T>
void copy_to_lanes(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim,
                   T factor, T* to) {
  for (std::int64_t d = 0; d < dim; ++d, to += kTile) {
    for (std::int64_t r = 0; r < rows; ++r) to[r] = from[r * stride + d] * factor;
    std::fill(to + rows, to + kTile, T{0});
  }
}

// products[j][lane] = sum over d of rows[j][d] lanes[d][lane], on the lanes that see the tile.
template <class T>
void rows_times_lanes(const T* rows, std::int64_t stride, const T* lanes, const Ranges& whole,
                      const KeyTile& keys, T* products) {
  const std::int64_t first = keys.lanes.begin;
  multiply<T>({rows, stride, 1}, whole.data(), keys.count, lanes + first, kTile,
              keys.lanes.end - first, products + first, kTile);
}

// One step of the running softmax for kNarrow queries, one a lane: scores become exp(score - peak)
// for the new peak; what was summed before has to be multiplied by `shrink`. With Masked, pairs
// that are not visible count as score -inf.
template <bool Masked, class T>
void softmax_step(const KeyTile& keys, const std::int32_t* position, std::int64_t window, T* scores,
                  T* peak, T* sum, T* shrink) {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  T top[kNarrow], part[kNarrow];
  for (int r = 0; r < kNarrow; ++r) top[r] = peak[r];
  for (std::int64_t j = 0; j < keys.count; ++j) {
    const auto key = static_cast<std::int32_t>(keys.first + j);
    const auto last = static_cast<std::int32_t>(key + window - 1);
    T* row = scores + j * kTile;
#pragma omp simd
    for (int r = 0; r < kNarrow; ++r) {
      T score = row[r];
      if constexpr (Masked) {
        score = (position[r] >= key) & (position[r] <= last) ? score : kNone;
        row[r] = score;
      }
      top[r] = score > top[r] ? score : top[r];
    }
  }
#pragma omp simd
  for (int r = 0; r < kNarrow; ++r) {
    // A lane that has seen no key yet keeps peak -inf and sum 0; 0 stands in, so that no -inf is
    // subtracted from another.
    const T base = top[r] == kNone ? T{0} : top[r];
    shrink[r] = fast_exp(peak[r] - base);
    peak[r] = top[r];
    top[r] = base;
    part[r] = 0;
  }
  for (std::int64_t j = 0; j < keys.count; ++j) {
    T* row = scores + j * kTile;
#pragma omp simd
    for (int r = 0; r < kNarrow; ++r) {
      const T weight = fast_exp(row[r] - top[r]);
      row[r] = weight;
      part[r] += weight;
    }
  }
#pragma omp simd
  for (int r = 0; r < kNarrow; ++r) sum[r] = sum[r] * shrink[r] + part[r];
}

// The same for kNarrow queries in the backward. weights: scores -> probabilities; dscores: dy . v
// -> gradients of the scores. Pairs that are not visible get anything.
template <class T>
void softmax_gradient(const KeyTile& keys, const T* lse, const T* delta, T* weights, T* dscores) {
  for (std::int64_t j = 0; j < keys.count; ++j) {
    T *weight = weights + j * kTile, *dscore = dscores + j * kTile;
#pragma omp simd
    for (int r = 0; r < kNarrow; ++r) {
      weight[r] = fast_exp(weight[r] - lse[r]);
      dscore[r] = weight[r] * (dscore[r] - delta[r]);
    }
  }
}

template <class T>
class ForwardPass {
 public:
  ForwardPass(const Tensor& Q, const Tensor& K, const Tensor& V,
              const FullAttentionOptions& options, Tensor& y, Tensor& lse)
      : heads_(Q, V, options),
        options_(options),
        Q_(Q.data<T>()),
        K_(K.data<T>()),
        V_(V.data<T>()),
        y_(y.data<T>()),
        lse_(lse.data<T>()),
        scratch_(kTile * (heads_.dim + kTile + 3 + 3 * round_up(heads_.value_dim))) {}

  void operator()(const QueryTile& queries) {
    for (std::int64_t head = 0; head < heads_.heads; ++head) run(queries, head);
  }

 private:
  void run(const QueryTile& queries, std::int64_t head) {
    const std::int64_t dim = heads_.dim, value_dim = heads_.value_dim, width = round_up(value_dim);
    const std::int64_t kv_head = heads_.kv_head(head), window = window_of(options_, queries);
    const T* K = K_ + queries.sequence_begin * heads_.k_stride + kv_head * dim;
    const T* V = V_ + queries.sequence_begin * heads_.v_stride + kv_head * value_dim;

    copy_to_lanes(Q_ + queries.first * heads_.q_stride + head * dim, heads_.q_stride, queries.count,
                  dim, static_cast<T>(options_.scale), query_lanes_);
    std::fill(peak_, peak_ + kTile, -std::numeric_limits<T>::infinity());
    std::fill(sum_, sum_ + kTile, T{0});
    std::fill(result_, result_ + kTile * width, T{0});

    for_each_key_tile(queries, window, [&](const KeyTile& keys) {
      rows_times_lanes(K + keys.first * heads_.k_stride, heads_.k_stride, query_lanes_,
                       heads_.whole_row, keys, scores_);
      for (std::int64_t r = keys.lanes.begin; r < keys.lanes.end; r += kNarrow) {
        const auto step = keys.full ? softmax_step<false, T> : softmax_step<true, T>;
        step(keys, queries.position.data() + r, window, scores_ + r, peak_ + r, sum_ + r,
             shrink_ + r);
      }

      copy_rows(V + keys.first * heads_.v_stride, heads_.v_stride, keys.count, value_dim, T{1},
                values_);
      keys_of_rows(queries, keys, window, seen_);
      const std::int64_t begin = keys.rows.begin;
      multiply<T>({scores_ + begin, 1, kTile}, seen_.data() + begin, keys.rows.end - begin, values_,
                  width, width, part_ + begin * width, width);
      for (std::int64_t r = begin; r < keys.rows.end; ++r) {
        T* result = result_ + r * width;
        const T *part = part_ + r * width, shrink = shrink_[r];
#pragma omp simd
        for (std::int64_t d = 0; d < width; ++d) result[d] = result[d] * shrink + part[d];
      }
    });

    for (std::int64_t r = 0; r < queries.count; ++r) {
      const std::int64_t row = queries.first + r;
      T* y = y_ + row * heads_.y_stride + head * value_dim;
      for (std::int64_t d = 0; d < value_dim; ++d) y[d] = result_[r * width + d] / sum_[r];
      lse_[row * heads_.heads + head] = peak_[r] + std::log(sum_[r]);
    }
  }

  Heads heads_;
  const FullAttentionOptions& options_;
  const T *Q_, *K_, *V_;
  T *y_, *lse_;

  Scratch<T> scratch_;
  T* query_lanes_ = scratch_.take(kTile * heads_.dim);  // [N, kTile], scaled
  T* scores_ = scratch_.take(kTile * kTile);            // [keys, lanes]
  T* peak_ = scratch_.take(kTile);
  T* sum_ = scratch_.take(kTile);
  T* shrink_ = scratch_.take(kTile);
  T* values_ = scratch_.take(kTile * round_up(heads_.value_dim));  // [keys, P]
  T* part_ = scratch_.take(kTile * round_up(heads_.value_dim));    // [rows, P], of one key tile
  T* result_ = scratch_.take(kTile * round_up(heads_.value_dim));  // [rows, P], not yet divided
  Ranges seen_;
};

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Tensor& dy, const Tensor& Q, const Tensor& K, const Tensor& V, const Tensor& y,
               const Tensor& lse, const FullAttentionOptions& options, Tensor& dQ, Tensor& dK,
               Tensor& dV)
      : heads_(Q, V, options),
        options_(options),
        dy_(dy.data<T>()),
        Q_(Q.data<T>()),
        K_(K.data<T>()),
        V_(V.data<T>()),
        y_(y.data<T>()),
        lse_(lse.data<T>()),
        dQ_(dQ.data<T>()),
        dK_(dK.data<T>()),
        dV_(dV.data<T>()),
        scratch_(kTile * (heads_.dim + heads_.value_dim + 2 * kTile + 2 + 4 * round_up(heads_.dim) +
                          2 * round_up(heads_.value_dim))) {}

  void operator()(const QueryTile& queries) {
    for (std::int64_t head = 0; head < heads_.heads; ++head) run(queries, head);
  }

 private:
  void run(const QueryTile& queries, std::int64_t head) {
    const std::int64_t dim = heads_.dim, width = round_up(dim), kv_head = heads_.kv_head(head);
    const std::int64_t window = window_of(options_, queries);
    const std::int64_t k_first = queries.sequence_begin * heads_.k_stride + kv_head * dim;
    const std::int64_t v_first =
        queries.sequence_begin * heads_.v_stride + kv_head * heads_.value_dim;
    load(queries, head);
    std::fill(dquery_, dquery_ + kTile * width, T{0});

    for_each_key_tile(queries, window, [&](const KeyTile& keys) {
      const std::int64_t k_at = k_first + keys.first * heads_.k_stride;
      const std::int64_t v_at = v_first + keys.first * heads_.v_stride;
      rows_times_lanes(K_ + k_at, heads_.k_stride, query_lanes_, heads_.whole_row, keys, weights_);
      rows_times_lanes(V_ + v_at, heads_.v_stride, dy_lanes_, heads_.whole_value, keys, dscores_);
      for (std::int64_t r = keys.lanes.begin; r < keys.lanes.end; r += kNarrow) {
        softmax_gradient(keys, row_lse_ + r, row_delta_ + r, weights_ + r, dscores_ + r);
      }

      rows_of_keys(queries, keys, window, seen_by_);
      add_key_rows(weights_, keys, dy_rows_, heads_.value_dim, heads_.v_stride, dV_ + v_at);
      add_key_rows(dscores_, keys, query_rows_, dim, heads_.k_stride, dK_ + k_at);

      copy_rows(K_ + k_at, heads_.k_stride, keys.count, dim, T{1}, key_rows_);
      keys_of_rows(queries, keys, window, seen_);
      const std::int64_t begin = keys.rows.begin;
      multiply<T>({dscores_ + begin, 1, kTile}, seen_.data() + begin, keys.rows.end - begin,
                  key_rows_, width, width, part_ + begin * width, width);
#pragma omp simd
      for (std::int64_t d = begin * width; d < keys.rows.end * width; ++d) dquery_[d] += part_[d];
    });

    for (std::int64_t r = 0; r < queries.count; ++r) {
      T* dq = dQ_ + (queries.first + r) * heads_.q_stride + head * dim;
      const T* from = dquery_ + r * width;
      for (std::int64_t d = 0; d < dim; ++d) dq[d] = from[d] * static_cast<T>(options_.scale);
    }
  }

  // Q, dy, lse and delta = dy . y of the tile's rows.
  void load(const QueryTile& queries, std::int64_t head) {
    const std::int64_t dim = heads_.dim, value_dim = heads_.value_dim;
    const T* Q = Q_ + queries.first * heads_.q_stride + head * dim;
    const T scale = static_cast<T>(options_.scale);
    copy_to_lanes(Q, heads_.q_stride, queries.count, dim, scale, query_lanes_);
    copy_rows(Q, heads_.q_stride, queries.count, dim, scale, query_rows_);

    const std::int64_t first = queries.first * heads_.y_stride + head * value_dim;
    copy_to_lanes(dy_ + first, heads_.y_stride, queries.count, value_dim, T{1}, dy_lanes_);
    copy_rows(dy_ + first, heads_.y_stride, queries.count, value_dim, T{1}, dy_rows_);
    std::fill(row_lse_, row_lse_ + kTile, T{0});
    std::fill(row_delta_, row_delta_ + kTile, T{0});
    for (std::int64_t r = 0; r < queries.count; ++r) {
      const T *dy = dy_ + first + r * heads_.y_stride, *y = y_ + first + r * heads_.y_stride;
      T delta = 0;
#pragma omp simd reduction(+ : delta)
      for (std::int64_t d = 0; d < value_dim; ++d) delta += dy[d] * y[d];
      row_delta_[r] = delta;
      row_lse_[r] = lse_[(queries.first + r) * heads_.heads + head];
    }
  }

  // to[j] += sum over the rows r that see key j of factors[j][r] x[r].
  void add_key_rows(const T* factors, const KeyTile& keys, const T* x, std::int64_t dim,
                    std::int64_t stride, T* to) {
    const std::int64_t width = round_up(dim);
    multiply<T>({factors, kTile, 1}, seen_by_.data(), keys.count, x, width, width, part_, width);
    for (std::int64_t j = 0; j < keys.count; ++j) {
      const T* from = part_ + j * width;
      for (std::int64_t d = 0; d < dim; ++d) to[j * stride + d] += from[d];
    }
  }

  Heads heads_;
  const FullAttentionOptions& options_;
  const T *dy_, *Q_, *K_, *V_, *y_, *lse_;
  T *dQ_, *dK_, *dV_;

  Scratch<T> scratch_;
  T* query_lanes_ = scratch_.take(kTile * heads_.dim);     // [N, kTile], scaled
  T* dy_lanes_ = scratch_.take(kTile * heads_.value_dim);  // [P, kTile]
  T* weights_ = scratch_.take(kTile * kTile);              // [keys, lanes]
  T* dscores_ = scratch_.take(kTile * kTile);              // [keys, lanes]
  T* row_lse_ = scratch_.take(kTile);
  T* row_delta_ = scratch_.take(kTile);
  T* query_rows_ = scratch_.take(kTile * round_up(heads_.dim));     // [rows, N], scaled
  T* key_rows_ = scratch_.take(kTile * round_up(heads_.dim));       // [keys, N]
  T* dquery_ = scratch_.take(kTile * round_up(heads_.dim));         // [rows, N]
  T* dy_rows_ = scratch_.take(kTile * round_up(heads_.value_dim));  // [rows, P]
  T* part_ = scratch_.take(kTile * std::max(round_up(heads_.dim), round_up(heads_.value_dim)));
  Ranges seen_, seen_by_;
};

}  // namespace

void full_attention_forward(Cpu, const Tensor& Q, const Tensor& K, const Tensor& V,
                            const Tensor& rows, const Sequences& sequences,
                            const FullAttentionOptions& options, Tensor& y, Tensor& lse) {
  check_rows(rows, sequences.tokens());
  visit_float(Q.dtype(), [&]<class T>() {
    for_each_query_tile(sequences, rows ? rows.data<std::int32_t>() : nullptr, Q.size(0),
                        ForwardPass<T>(Q, K, V, options, y, lse));
  });
}

void full_attention_backward(Cpu, const Tensor& dy, const Tensor& Q, const Tensor& K,
                             const Tensor& V, const Tensor& rows, const Tensor& y,
                             const Tensor& lse, const Sequences& sequences,
                             const FullAttentionOptions& options, Tensor& dQ, Tensor& dK,
                             Tensor& dV) {
  fill(dK, 0);
  fill(dV, 0);
  visit_float(Q.dtype(), [&]<class T>() {
    for_each_query_tile(sequences, rows ? rows.data<std::int32_t>() : nullptr, Q.size(0),
                        BackwardPass<T>(dy, Q, K, V, y, lse, options, dQ, dK, dV));
  });
}

}  // namespace hax
