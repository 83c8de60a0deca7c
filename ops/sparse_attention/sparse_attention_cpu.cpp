#include <algorithm>
#include <optional>
#include <vector>

#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/key_set/key_sweep.h"
#include "ops/sparse_attention/gather_rows.h"
#include "ops/sparse_attention/older_keys.h"
#include "ops/sparse_attention/query_block.h"
#include "ops/sparse_attention/softmax_row.h"
#include "ops/sparse_attention/sparse_attention_kernels.h"
#include "ops/sparse_attention/uniform_rows.h"

namespace hax {
namespace {

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

// Rows in a block that is computed bin by bin, in sequences that outgrow the cache.
constexpr std::int64_t kBlock = 2048;
bool outgrows_cache(const KeySet& keys, std::int64_t rows) {
  return keys.banded() && rows >= kBlock;
}

// The forward of rows first..last-1, which belong to sequence s.
template <class T>
class ForwardRows {
 public:
  ForwardRows(const Tensor& Q, const Tensor& K, const Tensor& V, const KeySet& keys, std::int64_t s,
              EmptyRows empty, Tensor& y, Tensor& softmax)
      : states_(Q.size(1)),
        channels_(V.size(1)),
        q_(Q.data<T>()),
        k_(K.data<T>() + keys.sequences.begin(s) * states_),
        v_(V.data<T>() + keys.sequences.begin(s) * channels_),
        out_(y.data<T>()),
        saved_(softmax.data<T>()),
        empty_(empty),
        uniform_(states_, channels_) {
    uniform_.enter(k_, v_, keys.sequences.length(s), keys.sequences.padded(s));
  }

  void row(std::int64_t r, KeyList list) {
    T* result = out_ + r * channels_;
    if (!list.empty()) {
      T* const weight = weights_.fit(list.size());
      scores(q_ + r * states_, k_, states_, list, weight);
      const Softmax<T> row = softmax_row(Row<T>{weight, list.size()});
      saved_[2 * r] = row.largest;
      saved_[2 * r + 1] = row.inverse_sum;
      weighted_sum(weight, v_, channels_, list, result);
    } else if (empty_ == EmptyRows::uniform) {
      uniform_.forward(result);
    } else {
      std::fill_n(result, channels_, T{0});
    }
  }

 private:
  std::int64_t states_, channels_;
  const T *q_, *k_, *v_;
  T *out_, *saved_;
  RowBuffer<T> weights_;
  EmptyRows empty_;
  UniformRows<T> uniform_;
};

}  // namespace

void sparse_attention_forward(Cpu, const Tensor& Q, const Tensor& K, const Tensor& V,
                              const KeySet& keys, const Tensor& rows, EmptyRows empty, Tensor& y,
                              Tensor& softmax) {
  visit_float(Q.dtype(), [&]<class T>() {
    const WantedRows wanted(keys.sequences, rows);
    wanted.for_each_sequence([&](std::int64_t s, std::int64_t first, std::int64_t last) {
      const bool by_bins = outgrows_cache(keys, last - first);
      parallel_rows(last - first, [&](std::int64_t begin, std::int64_t end) {
        ForwardRows<T> forward(Q, K, V, keys, s, empty, y, softmax);
        KeySweep sweep(keys);
        sweep.enter(s, wanted.position(first + begin, s));
        if (!by_bins) {
          for (std::int64_t r = first + begin; r < first + end; ++r) {
            forward.row(r, sweep.keys_of(wanted.position(r, s)));
          }
          return;
        }
        QueryBlock block;
        for (std::int64_t r = first + begin; r < first + end; r += block.size()) {
          block.clear();
          for (std::int64_t t = r; t < std::min(r + kBlock, first + end); ++t) {
            const std::int32_t i = wanted.position(t, s);
            block.add(sweep.bin_of(i), sweep.keys_of(i));
          }
          block.sort_by_bin();
          for (std::int64_t v = 0; v < block.size(); ++v) {
            forward.row(r + block.query(v), block.keys(v));
          }
        }
      });
    });
  });
}

namespace {

// What the backward reads and writes, and the sizes.
template <class T>
struct BackwardData {
  std::int64_t states, channels;
  const T *q, *dy, *saved;  // of row 0
  const T *K, *V;           // of the sequence's first token
  T *dq, *dK, *dV;
};

// The backward of some rows of one sequence, up to kTogether at a time.
template <class T>
class BackwardRows {
 public:
  BackwardRows(const BackwardData<T>& data, std::int64_t length, std::int64_t padded,
               EmptyRows empty, OlderKeys<T>* older)
      : data_(data),
        dK_(older != nullptr ? older->dK(data.dK) : GradientRows<T>{data.dK}),
        dV_(older != nullptr ? older->dV(data.dV) : GradientRows<T>{data.dV}),
        empty_(empty),
        uniform_(data.states, data.channels) {
    uniform_.enter(data.K, data.V, length, padded);
  }

  // The rows of the block, the first of which is row `first`; the lists of all begin with the same
  // `shared` keys.
  void run(const QueryBlock& block, std::int64_t first, std::size_t shared) {
    for (std::int64_t v = 0; v < block.size();) {
      const std::int64_t count = std::min<std::int64_t>(kTogether, block.size() - v);
      const T* dy[kTogether] = {};
      for (std::int64_t b = 0; b < count; ++b) {
        const std::int64_t r = first + block.query(v + b);
        dy[b] = data_.dy + r * data_.channels;
        take_up(static_cast<std::size_t>(b), block.keys(v + b), r);
      }
      // A few rows alone take the shared keys like any others.
      const std::size_t together = count == kTogether ? shared : 0;
      if (together > 0) {
        T *weight[kTogether], *dscore[kTogether];
        for (std::size_t b = 0; b < kTogether; ++b) {
          weight[b] = weights_[b].data();
          dscore[b] = dscores_[b].data();
        }
        shared_dots(dy, data_.V, data_.channels, block.keys(v).first(together), dscore, weight,
                    dV_);
      }
      for (std::int64_t b = 0; b < count; ++b) {
        finish(static_cast<std::size_t>(b), block.keys(v + b), together,
               first + block.query(v + b));
      }
      v += count;
    }
  }
  // After the last row.
  void leave() { uniform_.leave(data_.dK, data_.dV); }

 private:
  // The weights of row r, as b-th of those together.
  void take_up(std::size_t b, KeyList list, std::int64_t r) {
    if (list.empty()) return;
    T* const weight = weights_[b].fit(list.size());
    dscores_[b].fit(list.size());
    scores(data_.q + r * data_.states, data_.K, data_.states, list, weight);
    softmax_again({data_.saved[2 * r], data_.saved[2 * r + 1]}, Row<T>{weight, list.size()});
  }
  // Everything but the shared keys' part of dV.
  void finish(std::size_t b, KeyList list, std::size_t shared, std::int64_t r) {
    const std::int64_t states = data_.states;
    const T *q = data_.q + r * states, *dy = data_.dy + r * data_.channels;
    T* dq = data_.dq + r * states;
    if (!list.empty()) {
      T *weight = weights_[b].data(), *dscore = dscores_[b].data();
      dots<true>(dy, data_.V, data_.channels, list.subspan(shared), dscore + shared,
                 weight + shared, dV_);
      score_gradients(Row<T>{weight, list.size()}, Row<T>{dscore, list.size()});
      weighted_sum(dscore, data_.K, states, list, dq);
      scatter(dscore, q, states, list, dK_);
    } else if (empty_ == EmptyRows::uniform) {
      uniform_.backward(q, dy, dq);
    } else {
      std::fill_n(dq, states, T{0});
    }
  }

  BackwardData<T> data_;
  GradientRows<T> dK_, dV_;
  RowBuffer<T> weights_[kTogether], dscores_[kTogether];
  EmptyRows empty_;
  UniformRows<T> uniform_;
};

// Makes rows of dK and dV zero shortly before the first query adds to them, not in a pass of its
// own that would leave the cache again.
template <class T>
class ZeroedRows {
 public:
  ZeroedRows(const BackwardData<T>& data, std::int64_t begin) : data_(data), zeroed_(begin) {}
  void up_to(std::int64_t token) {
    if (token <= zeroed_) return;
    std::fill(data_.dK + zeroed_ * data_.states, data_.dK + token * data_.states, T{0});
    std::fill(data_.dV + zeroed_ * data_.channels, data_.dV + token * data_.channels, T{0});
    zeroed_ = token;
  }

 private:
  BackwardData<T> data_;
  std::int64_t zeroed_;
};

}  // namespace

void sparse_attention_backward(Cpu, const Tensor& dy, const Tensor& Q, const Tensor& K,
                               const Tensor& V, const Tensor& softmax, const KeySet& keys,
                               const Tensor& rows, EmptyRows empty, Tensor& dQ, Tensor& dK,
                               Tensor& dV) {
  visit_float(Q.dtype(), [&]<class T>() {
    const BackwardData<T> pack{Q.size(1),         V.size(1),   Q.data<T>(), dy.data<T>(),
                               softmax.data<T>(), K.data<T>(), V.data<T>(), dQ.data<T>(),
                               dK.data<T>(),      dV.data<T>()};
    const WantedRows wanted(keys.sequences, rows);
    std::int64_t done = 0;  // tokens
    const auto skip_to = [&](std::int64_t token) {
      ZeroedRows<T>(pack, done).up_to(token);
      done = token;
    };
    wanted.for_each_sequence([&](std::int64_t s, std::int64_t first, std::int64_t last) {
      const std::int64_t start = keys.sequences.begin(s), length = keys.sequences.length(s);
      skip_to(start);
      done += length;
      BackwardData<T> data = pack;
      data.K += start * data.states;
      data.dK += start * data.states;
      data.V += start * data.channels;
      data.dV += start * data.channels;
      const std::int64_t together = outgrows_cache(keys, last - first) ? kBlock : kTogether;
      // What empty rows send reaches the whole sequence.
      const Pieces pieces(last - first,
                          empty == EmptyRows::uniform ? last - first : kRowsWorthAPiece);
      std::vector<std::optional<OlderKeys<T>>> older(static_cast<std::size_t>(pieces.number()));
      parallel_for(pieces.number(), [&](std::int64_t p) {
        const std::int64_t begin = first + pieces.begin(p), end = first + pieces.end(p);
        const std::int32_t from = p == 0 ? 0 : wanted.position(begin, s);
        const bool is_last = p + 1 == pieces.number();
        auto& mine = older[static_cast<std::size_t>(p)];
        if (p > 0) mine.emplace(keys, s, from, data.states, data.channels);
        BackwardRows<T> backward(data, length, keys.sequences.padded(s), empty,
                                 mine ? &*mine : nullptr);
        ZeroedRows<T> zeroed(data, from);
        KeySweep sweep(keys);
        sweep.enter(s, from);
        QueryBlock block;
        for (std::int64_t r = begin; r < end; r += block.size()) {
          const std::int64_t next = std::min(r + together, end);
          block.clear();
          const std::size_t shared =
              sweep.share(wanted.position(r, s), wanted.position(next - 1, s));
          for (std::int64_t t = r; t < next; ++t) {
            const std::int32_t i = wanted.position(t, s);
            block.add(sweep.bin_of(i), sweep.keys_of(i));
          }
          if (together > std::int64_t{kTogether}) block.sort_by_bin();
          zeroed.up_to(wanted.position(next - 1, s) + 1);
          backward.run(block, r, shared);
        }
        zeroed.up_to(is_last ? length : wanted.position(end, s));
        backward.leave();
      });
      if (pieces.number() == 1) return;
      parallel_rows(length, [&](std::int64_t begin, std::int64_t end) {
        for (const auto& piece : older) {
          if (piece) piece->add_to(begin, end, data.dK, data.dV);
        }
      });
    });
    skip_to(keys.sequences.tokens());
  });
}

}  // namespace hax
