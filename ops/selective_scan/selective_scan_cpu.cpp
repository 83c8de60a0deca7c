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

// Some tokens of a sequence, and for each the row of y and C, or -1: nobody reads it.
struct Chunk {
  std::int64_t begin, len;
  std::array<std::int64_t, kScanChunk> row;
};

// The inputs, laid out for blocks.
template <class T>
struct Inputs {
  std::int64_t dim, state, blocks;
  const T *u, *dt, *B, *C;
  std::vector<Lanes<T>> rate;  // [blocks, state], A log2(e): decays are powers of two
  std::vector<Lanes<T>> D;     // [blocks]
  std::span<const std::int32_t> rows;
  bool all_rows;

  explicit Inputs(const ScanInputs& in)
      : dim(in.u.size(1)),
        state(in.A.size(1)),
        blocks((dim + kLanes<T> - 1) / kLanes<T>),
        u(in.u.data<T>()),
        dt(in.dt.data<T>()),
        B(in.B.data<T>()),
        C(in.C.data<T>()),
        rate(state * blocks),
        D(blocks),
        all_rows(!in.rows.defined()) {
    if (!all_rows) rows = in.rows.values<std::int32_t>();
    const T *A = in.A.data<T>(), *skip = in.D.data<T>();
    for (std::int64_t e = 0; e < dim; ++e) {
      const std::int64_t block = e / kLanes<T>, lane = e % kLanes<T>;
      D[block].v[lane] = skip[e];
      for (std::int64_t n = 0; n < state; ++n) {
        rate[block * state + n].v[lane] = A[e * state + n] * std::numbers::log2e_v<T>;
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

  // C of a chunk's tokens [kScanChunk, state], zero where nobody reads.
  void gather_C(const Chunk& chunk, std::vector<T>& out) const {
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      T* to = out.data() + i * state;
      if (chunk.row[i] < 0) {
        std::fill_n(to, state, T(0));
      } else {
        std::copy_n(C + chunk.row[i] * state, state, to);
      }
    }
  }

  void load_block(const Chunk& chunk, std::int64_t block, BlockInputs<T>& to) const {
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      const std::int64_t at = (chunk.begin + i) * dim + first(block);
      load(u + at, width(block), to.u[i]);
      load(dt + at, width(block), to.dt[i]);
#pragma omp simd
      for (int k = 0; k < kLanes<T>; ++k) to.drive[i].v[k] = to.dt[i].v[k] * to.u[i].v[k];
    }
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
        h_(in_.rate.size()),
        C_(kScanChunk * in_.state) {}

  void run(const Sequences& sequences) {
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      in_.load_sequence(initial_, s, h_);
      for (std::int64_t t = sequences.begin(s); t < sequences.end(s); t += kScanChunk) {
        const Chunk chunk = in_.chunk(t, sequences.end(s));
        in_.gather_C(chunk, C_);
        for (std::int64_t block = 0; block < in_.blocks; ++block) run_block(chunk, block);
        if (states_ != nullptr) states_ += in_.state * in_.dim;
      }
      in_.store_sequence(h_, s, final_);
    }
  }

 private:
  void run_block(const Chunk& chunk, std::int64_t block) {
    const std::int64_t first = in_.first(block), width = in_.width(block);
    in_.load_block(chunk, block, block_in_);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
#pragma omp simd
      for (int k = 0; k < kLanes<T>; ++k) y_tile_[i].v[k] = in_.D[block].v[k] * block_in_.u[i].v[k];
    }
    Lanes<T>* h = h_.data() + block * in_.state;
    if (states_ != nullptr) {
      for (std::int64_t n = 0; n < in_.state; ++n) {
        store(h[n], width, states_ + n * in_.dim + first);
      }
    }
    const T *B = in_.B + chunk.begin * in_.state, *C = C_.data();
    for_each_group(in_.state, [&]<int kStates>(std::int64_t n) {
      scan_states<kStates>(chunk.len, block_in_, &in_.rate[block * in_.state + n],
                           Columns<T>{B + n, in_.state}, Columns<T>{C + n, in_.state}, h + n,
                           y_tile_);
    });
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      if (chunk.row[i] >= 0) store(y_tile_[i], width, y_ + chunk.row[i] * in_.dim + first);
    }
  }

  const Inputs<T> in_;
  const T* initial_;
  T *y_, *final_, *states_;  // states_: of the current chunk
  std::vector<Lanes<T>> h_;  // [blocks, state]
  std::vector<T> C_;         // [kScanChunk, state]
  BlockInputs<T> block_in_;
  Tile<T> y_tile_;
};

// Sequences in order, the chunks of each from the last to the first.
template <class T>
class BackwardPass {
 public:
  // dy and dfinal may be undefined: zero.
  BackwardPass(const Tensor& dy, const Tensor& dfinal, const ScanInputs& inputs,
               const Tensor& states, ScanGradients& out)
      : in_(inputs),
        dy_(dy.defined() ? dy.data<T>() : nullptr),
        dfinal_(dfinal.defined() ? dfinal.data<T>() : nullptr),
        states_(states.data<T>()),
        du_(out.du.data<T>()),
        ddt_(out.ddt.data<T>()),
        dB_(out.dB.data<T>()),
        dC_(out.dC.data<T>()),
        dinitial_(out.dinitial.defined() ? out.dinitial.data<T>() : nullptr),
        dh_(in_.rate.size()),
        dA_(in_.rate.size()),
        dD_(in_.blocks),
        dB_lanes_(in_.state),
        dC_lanes_(in_.state),
        C_(in_.state * kScanChunk) {}

  void run(const Sequences& sequences) {
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
    in_.gather_C(chunk, C_);
    std::ranges::fill(dB_lanes_, Tile<T>{});
    std::ranges::fill(dC_lanes_, Tile<T>{});
    for (std::int64_t block = 0; block < in_.blocks; ++block) run_block(chunk, block, states);
    if (in_.state == 0) return;
    const T* dB = sum_lanes(dB_lanes_[0].data(), in_.state * kScanChunk);  // [state, kScanChunk]
    const T* dC = sum_lanes(dC_lanes_[0].data(), in_.state * kScanChunk);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      for (std::int64_t n = 0; n < in_.state; ++n) {
        dB_[(chunk.begin + i) * in_.state + n] = dB[n * kScanChunk + i];
      }
      if (chunk.row[i] < 0) continue;
      for (std::int64_t n = 0; n < in_.state; ++n) {
        dC_[chunk.row[i] * in_.state + n] = dC[n * kScanChunk + i];
      }
    }
  }

  void run_block(const Chunk& chunk, std::int64_t block, const T* states) {
    const std::int64_t first = in_.first(block), width = in_.width(block);
    in_.load_block(chunk, block, block_in_);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      if (chunk.row[i] < 0 || dy_ == nullptr) {
        dy_tile_[i] = {};
      } else {
        load(dy_ + chunk.row[i] * in_.dim + first, width, dy_tile_[i]);
      }
    }
    sums_ = {};
    const T *B = in_.B + chunk.begin * in_.state, *C = C_.data();
    for_each_group(in_.state, [&]<int kStates>(std::int64_t n) {
      const std::int64_t at = block * in_.state + n;
      const Columns<T> columns_B{B + n, in_.state}, columns_C{C + n, in_.state};
      for (int j = 0; j < kStates; ++j) {
        load(states + (n + j) * in_.dim + first, width, trace_[j].h[0]);
      }
      trace_states<kStates>(chunk.len, block_in_, &in_.rate[at], columns_B, trace_.data());
      adjoint_states<kStates>(chunk.len, block_in_, dy_tile_, trace_.data(), &in_.rate[at],
                              columns_B, columns_C, &dh_[at], sums_, &dA_[at], &dB_lanes_[n],
                              &dC_lanes_[n]);
    });
    finish_block(chunk, block);
  }

  void finish_block(const Chunk& chunk, std::int64_t block) {
    Lanes<T> dD{};
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      const Lanes<T>&u = block_in_.u[i], &dt = block_in_.dt[i], &dy = dy_tile_[i];
      const Lanes<T>&dh_B = sums_.dh_B[i], &dexponent = sums_.dexponent[i];
      Lanes<T> du, ddt;
#pragma omp simd
      for (int k = 0; k < kLanes<T>; ++k) {
        du.v[k] = dt.v[k] * dh_B.v[k] + in_.D[block].v[k] * dy.v[k];
        ddt.v[k] = u.v[k] * dh_B.v[k] + std::numbers::ln2_v<T> * dexponent.v[k];
        dD.v[k] += dy.v[k] * u.v[k];
      }
      const std::int64_t at = (chunk.begin + i) * in_.dim + in_.first(block);
      store(du, in_.width(block), du_ + at);
      store(ddt, in_.width(block), ddt_ + at);
    }
#pragma omp simd
    for (int k = 0; k < kLanes<T>; ++k) dD_[block].v[k] += dD.v[k];
  }

  const Inputs<T> in_;
  const T *dy_, *dfinal_, *states_;
  T *du_, *ddt_, *dB_, *dC_, *dinitial_;
  std::vector<Lanes<T>> dh_;       // [blocks, state], from the chunks done
  std::vector<Lanes<T>> dA_, dD_;  // [blocks, state], [blocks]
  std::vector<Tile<T>> dB_lanes_;  // [state], summed over blocks, not yet over lanes
  std::vector<Tile<T>> dC_lanes_;
  std::vector<T> C_;  // [kScanChunk, state]
  BlockInputs<T> block_in_;
  Tile<T> dy_tile_;
  BlockSums<T> sums_;
  std::array<StateTrace<T>, kGroup> trace_;
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
