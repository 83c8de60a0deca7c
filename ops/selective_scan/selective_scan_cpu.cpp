// The outer order is sequence, chunk, block of channels, state: the work on one state of a block
// stays in the first-level cache for any number of states, channels and tokens.

#include <algorithm>
#include <numbers>
#include <span>
#include <vector>

#include "engine/dispatch.h"
#include "ops/selective_scan/selective_scan_block.h"
#include "ops/selective_scan/selective_scan_states.h"

namespace hax {
namespace {

using namespace scan;

// The inputs, laid out for blocks.
template <class T>
struct Inputs {
  std::int64_t dim, state, blocks;
  const T *u, *dt, *B, *C;
  std::vector<Lanes<T>> rate;     // [blocks, state], A log2(e): decays are powers of two
  std::vector<Lanes<T>> fastest;  // [blocks], the least of the rates
  std::vector<Lanes<T>> D;        // [blocks]
  std::span<const std::int32_t> rows;
  bool all_rows;

  // any_rows: whether y, or a gradient of it, is wanted at all.
  explicit Inputs(const ScanInputs& in, bool any_rows = true)
      : dim(in.u.size(1)),
        state(in.A.size(1)),
        blocks((dim + kLanes<T> - 1) / kLanes<T>),
        u(in.u.data<T>()),
        dt(in.dt.data<T>()),
        B(in.B.data<T>()),
        C(in.C.data<T>()),
        rate(state * blocks),
        fastest(blocks),
        D(blocks),
        all_rows(any_rows && !in.rows.defined()) {
    if (any_rows && !all_rows) rows = in.rows.values<std::int32_t>();
    const T *A = in.A.data<T>(), *skip = in.D.data<T>();
    for (std::int64_t e = 0; e < dim; ++e) {
      const std::int64_t block = e / kLanes<T>, lane = e % kLanes<T>;
      D[block].v[lane] = skip[e];
      for (std::int64_t n = 0; n < state; ++n) {
        const T x = A[e * state + n] * std::numbers::log2e_v<T>;
        rate[block * state + n].v[lane] = x;
        fastest[block].v[lane] = std::min(fastest[block].v[lane], x);
      }
    }
  }

  std::int64_t first(std::int64_t block) const { return block * kLanes<T>; }
  std::int64_t width(std::int64_t block) const { return dim - first(block); }

  // The states of sequence s: [S, E, N], or null for zero -> [blocks, state].
  void load_sequence(const T* all, std::int64_t s, std::vector<Lanes<T>>& to) const {
    if (all == nullptr) {
      std::ranges::fill(to, Lanes<T>{});
      return;
    }
    for (std::int64_t block = 0; block < blocks; ++block) {
      const T* from = all + (s * dim + first(block)) * state;
      load_states(from, width(block), state, to.data() + block * state);
    }
  }
  // The reverse.
  void store_sequence(const std::vector<Lanes<T>>& from, std::int64_t s, T* all) const {
    for (std::int64_t block = 0; block < blocks; ++block) {
      T* to = all + (s * dim + first(block)) * state;
      store_states(from.data() + block * state, width(block), state, to);
    }
  }

  Chunk chunk(std::int64_t begin, std::int64_t end) const {
    Chunk chunk{begin, std::min(end - begin, kScanChunk), {}};
    if (all_rows) {
      for (std::int64_t i = 0; i < chunk.len; ++i) chunk.row[i] = begin + i;
      return chunk;
    }
    chunk.row.fill(-1);
    auto next = std::ranges::lower_bound(rows, begin);
    for (; next != rows.end() && *next < begin + chunk.len; ++next) {
      chunk.row[*next - begin] = next - rows.begin();
    }
    return chunk;
  }

  void load_block(const Chunk& chunk, std::int64_t block, Tile<T>& to) const {
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      const std::int64_t at = (chunk.begin + i) * dim + first(block);
      to[i].u = load(u + at, width(block));
      to[i].dt = load(dt + at, width(block));
      to[i].drive = to[i].dt * to[i].u;
    }
  }

  // Calls f.operator()<kVanishing>() for the form of Decay that a chunk needs.
  template <class F>
  void with_decay(const Chunk& chunk, std::int64_t block, const Tile<T>& tile, F f) const {
    if constexpr (kHasShortDecay<T>) {
      if (!may_vanish(chunk, block, tile)) {
        f.template operator()<false>();
        return;
      }
    }
    f.template operator()<true>();
  }

 private:
  bool may_vanish(const Chunk& chunk, std::int64_t block, const Tile<T>& tile) const {
    Vec<T> least{};
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      const Vec<T> exponent = tile[i].dt * fastest[block].v;
      least = exponent < least ? exponent : least;
    }
    bool any = false;
    for (int k = 0; k < kLanes<T>; ++k) any |= least[k] < kLeastExponent;
    return any;
  }
};

template <class T>
class ForwardPass {
 public:
  // initial and states may be null: zero, not wanted.
  ForwardPass(const ScanInputs& inputs, const T* initial, T* y, T* final_state, T* states)
      : in_(inputs),
        initial_(initial),
        y_(y),
        final_(final_state),
        states_(states),
        h_(in_.rate.size()) {}

  void run(const Sequences& sequences) {
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      in_.load_sequence(initial_, s, h_);
      for (std::int64_t t = sequences.begin(s); t < sequences.end(s); t += kScanChunk) {
        const Chunk chunk = in_.chunk(t, sequences.end(s));
        for (std::int64_t block = 0; block < in_.blocks; ++block) run_block(chunk, block);
        if (states_ != nullptr) states_ += in_.state * in_.dim;
      }
      in_.store_sequence(h_, s, final_);
    }
  }

 private:
  void run_block(const Chunk& chunk, std::int64_t block) {
    const std::int64_t first = in_.first(block), width = in_.width(block);
    in_.load_block(chunk, block, tile_);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      if (chunk.row[i] < 0) continue;
      tile_[i].y = in_.D[block].v * tile_[i].u;
      announce_store(y_ + chunk.row[i] * in_.dim + first);
    }
    Lanes<T>* h = h_.data() + block * in_.state;
    if (states_ != nullptr) {
      for (std::int64_t n = 0; n < in_.state; ++n) {
        store(h[n].v, width, states_ + n * in_.dim + first);
      }
    }
    const T* B = in_.B + chunk.begin * in_.state;
    const auto scan = [&]<bool kVanishing>() {
      for_each_group(in_.state, [&]<int kStates>(std::int64_t n) {
        scan_states<kStates, kVanishing>(chunk, &in_.rate[block * in_.state + n],
                                         Columns<T>{B + n, in_.state},
                                         Columns<T>{in_.C + n, in_.state}, h + n, tile_);
      });
    };
    in_.with_decay(chunk, block, tile_, scan);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      if (chunk.row[i] >= 0) store(tile_[i].y, width, y_ + chunk.row[i] * in_.dim + first);
    }
  }

  const Inputs<T> in_;
  const T* initial_;
  T *y_, *final_, *states_;  // states_: of the current chunk
  std::vector<Lanes<T>> h_;  // [blocks, state]
  Tile<T> tile_;
};

// Sequences in order, the chunks of each from the last to the first.
template <class T>
class BackwardPass {
 public:
  // dy and dfinal may be undefined: zero.
  BackwardPass(const Tensor& dy, const Tensor& dfinal, const ScanInputs& inputs,
               const Tensor& states, ScanGradients& out)
      : in_(inputs, dy.defined()),
        dy_(dy.defined() ? dy.data<T>() : nullptr),
        dfinal_(dfinal.defined() ? dfinal.data<T>() : nullptr),
        states_(states.data<T>()),
        du_(out.du.data<T>()),
        ddt_(out.ddt.data<T>()),
        dB_(out.dB.data<T>()),
        dC_(out.dC.data<T>()),
        dinitial_(out.dinitial.defined() ? out.dinitial.data<T>() : nullptr),
        wanted_(out.dC.size(0)),
        dh_(in_.rate.size()),
        dA_(in_.rate.size()),
        dD_(in_.blocks),
        scratch_(kTrace + ColumnSums<1, T>::kSize * in_.state),
        columns_(ColumnSums<1, T>::kSize * in_.state) {}

  void run(const Sequences& sequences) {
    if (dy_ == nullptr) std::fill_n(dC_, wanted_ * in_.state, T(0));
    std::int64_t chunks_before = 0;
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
      const std::int64_t chunks = (end - begin + kScanChunk - 1) / kScanChunk;
      in_.load_sequence(dfinal_, s, dh_);
      for (std::int64_t c = chunks - 1; c >= 0; --c) {
        run_chunk(in_.chunk(begin + c * kScanChunk, end),
                  states_ + (chunks_before + c) * in_.state * in_.dim);
      }
      chunks_before += chunks;
      if (dinitial_ != nullptr) in_.store_sequence(dh_, s, dinitial_);
    }
  }

  // The gradients of the parameters, after run().
  void write_parameters(T* dA, T* dD) const {
    for (std::int64_t e = 0; e < in_.dim; ++e) {
      const std::int64_t block = e / kLanes<T>, lane = e % kLanes<T>;
      dD[e] = dD_[block].v[lane];
      for (std::int64_t n = 0; n < in_.state; ++n) {
        dA[e * in_.state + n] = dA_[block * in_.state + n].v[lane];
      }
    }
  }

 private:
  void run_chunk(const Chunk& chunk, const T* states) {
    std::fill(scratch_.begin() + kTrace, scratch_.end(), Lanes<T>{});
    for (std::int64_t block = 0; block < in_.blocks; ++block) run_block(chunk, block, states);
    sum_lanes(column_sums(0), 2 * kScanChunk * in_.state, columns_.data());
    for_each_group(in_.state, [&]<int kStates>(std::int64_t n) {
      const T* from = columns_.data() + 2 * kScanChunk * n;
      for (std::int64_t i = 0; i < chunk.len; ++i, from += 2 * kStates) {
        std::copy_n(from, kStates, dB_ + (chunk.begin + i) * in_.state + n);
        if (chunk.row[i] < 0) continue;
        std::copy_n(from + kStates, kStates, dC_ + chunk.row[i] * in_.state + n);
      }
    });
  }

  void run_block(const Chunk& chunk, std::int64_t block, const T* states) {
    const std::int64_t first = in_.first(block), width = in_.width(block);
    in_.load_block(chunk, block, tile_);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      if (chunk.row[i] >= 0) tile_[i].y = load(dy_ + chunk.row[i] * in_.dim + first, width);
      tile_[i].dh_B = tile_[i].dexponent = Vec<T>{};
      const std::int64_t at = (chunk.begin + i) * in_.dim + first;
      announce_store(du_ + at);
      announce_store(ddt_ + at);
    }
    const T* B = in_.B + chunk.begin * in_.state;
    const auto run = [&]<bool kVanishing>() {
      for_each_group(in_.state, [&]<int kStates>(std::int64_t n) {
        const std::int64_t at = block * in_.state + n;
        const Columns<T> columns_B{B + n, in_.state}, columns_C{in_.C + n, in_.state};
        const Trace<kStates, T> trace{scratch_.data()};
        for (int j = 0; j < kStates; ++j) {
          trace.h(0, j) = load(states + (n + j) * in_.dim + first, width);
        }
        trace_states<kStates, kVanishing>(chunk, tile_, &in_.rate[at], columns_B, trace);
        adjoint_states<kStates>(chunk, tile_, trace, &in_.rate[at], columns_B, columns_C, &dh_[at],
                                &dA_[at], ColumnSums<kStates, T>{column_sums(n)});
      });
    };
    in_.with_decay(chunk, block, tile_, run);
    finish_block(chunk, block);
  }

  void finish_block(const Chunk& chunk, std::int64_t block) {
    const std::int64_t first = in_.first(block), width = in_.width(block);
    Vec<T> dD{};
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      const Token<T>& token = tile_[i];
      Vec<T> du = token.dt * token.dh_B;
      if (chunk.row[i] >= 0) {
        du += in_.D[block].v * token.y;
        dD += token.y * token.u;
      }
      const Vec<T> ddt = token.u * token.dh_B + std::numbers::ln2_v<T> * token.dexponent;
      const std::int64_t at = (chunk.begin + i) * in_.dim + first;
      store(du, width, du_ + at);
      store(ddt, width, ddt_ + at);
    }
    dD_[block].v += dD;
  }

  // Where the ColumnSums of the states from n on are.
  Lanes<T>* column_sums(std::int64_t n) {
    return scratch_.data() + kTrace + ColumnSums<1, T>::kSize * n;
  }

  // The trace of a group of states, then the column sums of all states. The adjoint runs through
  // both at one pace, and a load whose address differs from that of an earlier store by a multiple
  // of 4096 waits for the store: half of that lies between them.
  static constexpr std::int64_t kPage = 4096 / sizeof(Lanes<T>);
  static constexpr std::int64_t kTrace =
      (Trace<kGroup, T>::kSize + kPage / 2 - 1) / kPage * kPage + kPage / 2;

  const Inputs<T> in_;
  const T *dy_, *dfinal_, *states_;
  T *du_, *ddt_, *dB_, *dC_, *dinitial_;
  std::int64_t wanted_;            // rows of dC
  std::vector<Lanes<T>> dh_;       // [blocks, state], from the chunks done
  std::vector<Lanes<T>> dA_, dD_;  // [blocks, state], [blocks]
  std::vector<Lanes<T>> scratch_;  // kTrace, then the column sums
  std::vector<T> columns_;         // the column sums, summed over lanes
  Tile<T> tile_;
};

}  // namespace

void selective_scan_forward(Cpu, const ScanInputs& in, const Tensor& initial,
                            const Sequences& sequences, Tensor& y, Tensor& final_state,
                            Tensor& states) {
  visit_float(in.u.dtype(), [&]<class T>() {
    const T* from = initial.defined() ? initial.data<T>() : nullptr;
    T* saved = states.defined() ? states.data<T>() : nullptr;
    ForwardPass<T>(in, from, y.data<T>(), final_state.data<T>(), saved).run(sequences);
  });
}

void selective_scan_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const ScanInputs& in,
                             const Tensor& states, const Sequences& sequences, ScanGradients& out) {
  visit_float(in.u.dtype(), [&]<class T>() {
    BackwardPass<T> pass(dy, dfinal, in, states, out);
    pass.run(sequences);
    pass.write_parameters(out.dA.data<T>(), out.dD.data<T>());
  });
}

}  // namespace hax
