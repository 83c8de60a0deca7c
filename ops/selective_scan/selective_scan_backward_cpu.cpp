// Backward of the selective scan. Sequences in order, the chunks of each from the last to the
// first; within a chunk block after block of channels, within a block a group of states after the
// other.

#include <vector>

#include "engine/dispatch.h"
#include "ops/selective_scan/selective_scan_inputs.h"

namespace hax {
namespace {

using namespace scan;

std::int64_t chunks_in(std::int64_t tokens) { return (tokens + kScanChunk - 1) / kScanChunk; }

// Some chunks of a sequence.
struct ChunkRange {
  std::int64_t begin, end;  // tokens
  std::int64_t first;       // chunk of the pack: where the states before `begin` are saved
};

// Gradients of B and C, [.., N], the first rows of which belong to a token and to a row wanted.
template <class T>
struct ColumnGradients {
  T *dB, *dC;
  std::int64_t token, row;
};

// Some blocks of channels.
template <class T>
class BackwardPass {
 public:
  // dy and dfinal may be undefined: zero.
  BackwardPass(const Inputs<T>& in, BlockRange blocks, const Tensor& dy, const Tensor& dfinal,
               const Tensor& states, ScanGradients& out)
      : in_(in),
        blocks_(blocks),
        dy_(dy.defined() ? dy.data<T>() : nullptr),
        dfinal_(dfinal.defined() ? dfinal.data<T>() : nullptr),
        states_(states.data<T>()),
        du_(out.du.data<T>()),
        ddt_(out.ddt.data<T>()),
        dinitial_(out.dinitial.defined() ? out.dinitial.data<T>() : nullptr),
        dh_(in_.rate.size()),
        dA_(in_.rate.size()),
        dD_(in_.blocks),
        scratch_(kTrace + ColumnSums<1, T>::kSize * in_.state),
        columns_(ColumnSums<1, T>::kSize * in_.state) {}

  // Sequence s, first of all; all its chunks, from the last to the first; and its end.
  void enter(std::int64_t s) { in_.load_sequence(dfinal_, s, blocks_, dh_); }
  void run(const ChunkRange& range, const ColumnGradients<T>& to) {
    for (std::int64_t c = chunks_in(range.end - range.begin) - 1; c >= 0; --c) {
      run_chunk(in_.chunk(range.begin + c * kScanChunk, range.end),
                states_ + (range.first + c) * in_.state * in_.dim, to);
    }
  }
  void leave(std::int64_t s) {
    if (dinitial_ != nullptr) in_.store_sequence(dh_, s, blocks_, dinitial_);
  }

  // The gradients of the parameters, after the last sequence.
  void write_parameters(T* dA, T* dD) const {
    const std::int64_t last = std::min(in_.dim, blocks_.end * kLanes<T>);
    for (std::int64_t e = in_.first(blocks_.begin); e < last; ++e) {
      const std::int64_t block = e / kLanes<T>, lane = e % kLanes<T>;
      dD[e] = dD_[block].v[lane];
      for (std::int64_t n = 0; n < in_.state; ++n) {
        dA[e * in_.state + n] = dA_[block * in_.state + n].v[lane];
      }
    }
  }

 private:
  void run_chunk(const Chunk& chunk, const T* states, const ColumnGradients<T>& to) {
    std::fill(scratch_.begin() + kTrace, scratch_.end(), Lanes<T>{});
    for (std::int64_t block = blocks_.begin; block < blocks_.end; ++block) {
      run_block(chunk, block, states);
    }
    sum_lanes(column_sums(0), 2 * kScanChunk * in_.state, columns_.data());
    for_each_group(in_.state, [&]<int kStates>(std::int64_t n) {
      const T* from = columns_.data() + 2 * kScanChunk * n;
      for (std::int64_t i = 0; i < chunk.len; ++i, from += 2 * kStates) {
        std::copy_n(from, kStates, to.dB + (chunk.begin + i - to.token) * in_.state + n);
        if (chunk.row[i] < 0) continue;
        std::copy_n(from + kStates, kStates, to.dC + (chunk.row[i] - to.row) * in_.state + n);
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
    if (block + 1 < blocks_.end) announce_block(chunk, block + 1, states);
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

  // Fetches what run_block() will read of the block after this one, meanwhile.
  void announce_block(const Chunk& chunk, std::int64_t block, const T* states) const {
    in_.announce_block(chunk, block);
    const std::int64_t first = in_.first(block);
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      if (chunk.row[i] >= 0) announce_load(dy_ + chunk.row[i] * in_.dim + first);
    }
    for (std::int64_t n = 0; n < in_.state; ++n) announce_load(states + n * in_.dim + first);
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

  const Inputs<T>& in_;
  BlockRange blocks_;
  const T *dy_, *dfinal_, *states_;
  T *du_, *ddt_, *dinitial_;
  std::vector<Lanes<T>> dh_;       // [blocks, state], from the chunks done
  std::vector<Lanes<T>> dA_, dD_;  // [blocks, state], [blocks]
  std::vector<Lanes<T>> scratch_;  // kTrace, then the column sums
  std::vector<T> columns_;         // the column sums, summed over lanes
  Tile<T> tile_;
};

// Tokens after which the pieces of the channels wait for each other and add up what they found of
// dB and dC, so that it is in the cache still. A multiple of kScanChunk.
constexpr std::int64_t kTogether = 4096;

// Some chunks, the pieces of the channels side by side, and the sums of their dB and dC in order.
template <class T>
void run_in_pieces(const Inputs<T>& in, std::vector<BackwardPass<T>>& passes, ChunkRange range,
                   std::vector<T>& parts, T* dB, T* dC) {
  const std::int64_t row = in.first_row(range.begin), wanted = in.first_row(range.end) - row;
  const std::int64_t of_B = (range.end - range.begin) * in.state, of_C = wanted * in.state;
  const auto number = static_cast<std::int64_t>(passes.size());
  parts.resize(std::max(parts.size(), static_cast<std::size_t>(number * (of_B + of_C))));
  const auto part = [&](std::int64_t p) { return parts.data() + p * (of_B + of_C); };
  parallel_for(number, [&](std::int64_t p) {
    passes[static_cast<std::size_t>(p)].run(range, {part(p), part(p) + of_B, range.begin, row});
  });
  sum_parts(part(0), number, of_B + of_C, of_B, dB + range.begin * in.state);
  sum_parts(part(0) + of_B, number, of_B + of_C, of_C, dC + row * in.state);
}

}  // namespace

void selective_scan_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const ScanInputs& in,
                             const Tensor& states, const Sequences& sequences, ScanGradients& out) {
  visit_float(in.u.dtype(), [&]<class T>() {
    const Inputs<T> inputs(in, dy.defined());
    T *dB = out.dB.data<T>(), *dC = out.dC.data<T>();
    if (!dy.defined()) fill(out.dC, 0);
    const ChannelPieces<T> pieces(inputs.tokens, inputs.dim);
    std::vector<BackwardPass<T>> passes;
    for (std::int64_t p = 0; p < pieces.number(); ++p) {
      passes.emplace_back(inputs, pieces.blocks(p), dy, dfinal, states, out);
    }
    std::vector<T> parts;
    std::int64_t chunks_before = 0;
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
      for (BackwardPass<T>& pass : passes) pass.enter(s);
      if (passes.size() == 1) {
        passes[0].run({begin, end, chunks_before}, {dB, dC, 0, 0});
      } else {
        for (std::int64_t c = (end - begin + kTogether - 1) / kTogether - 1; c >= 0; --c) {
          const std::int64_t first = begin + c * kTogether;
          const ChunkRange range{first, std::min(first + kTogether, end),
                                 chunks_before + c * kTogether / kScanChunk};
          run_in_pieces(inputs, passes, range, parts, dB, dC);
        }
      }
      for (BackwardPass<T>& pass : passes) pass.leave(s);
      chunks_before += chunks_in(end - begin);
    }
    for (const BackwardPass<T>& pass : passes) {
      pass.write_parameters(out.dA.data<T>(), out.dD.data<T>());
    }
  });
}

}  // namespace hax
