// Forward of the selective scan. The outer order is sequence, chunk, block of channels, state: the
// work on one state of a block stays in the first-level cache for any number of states, channels
// and tokens.

#include <vector>

#include "engine/dispatch.h"
#include "ops/selective_scan/selective_scan_inputs.h"

namespace hax {
namespace {

using namespace scan;

// Some blocks of all sequences.
template <class T>
class ForwardPass {
 public:
  // initial and states may be null: zero, not wanted.
  ForwardPass(const Inputs<T>& in, BlockRange blocks, const T* initial, T* y, T* final_state,
              T* states)
      : in_(in),
        blocks_(blocks),
        initial_(initial),
        y_(y),
        final_(final_state),
        states_(states),
        h_(in_.rate.size()) {}

  void run(const Sequences& sequences) {
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      in_.load_sequence(initial_, s, blocks_, h_);
      for (std::int64_t t = sequences.begin(s); t < sequences.end(s); t += kScanChunk) {
        const Chunk chunk = in_.chunk(t, sequences.end(s));
        for (std::int64_t block = blocks_.begin; block < blocks_.end; ++block) {
          run_block(chunk, block);
        }
        if (states_ != nullptr) states_ += in_.state * in_.dim;
      }
      in_.store_sequence(h_, s, blocks_, final_);
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
    if (block + 1 < blocks_.end) in_.announce_block(chunk, block + 1);
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

  const Inputs<T>& in_;
  BlockRange blocks_;
  const T* initial_;
  T *y_, *final_, *states_;  // states_: of the current chunk
  std::vector<Lanes<T>> h_;  // [blocks, state]
  Tile<T> tile_;
};

}  // namespace

void selective_scan_forward(Cpu, const ScanInputs& in, const Tensor& initial,
                            const Sequences& sequences, Tensor& y, Tensor& final_state,
                            Tensor& states) {
  visit_float(in.u.dtype(), [&]<class T>() {
    const T* from = initial.defined() ? initial.data<T>() : nullptr;
    T* saved = states.defined() ? states.data<T>() : nullptr;
    const Inputs<T> inputs(in);
    const ChannelPieces<T> pieces(inputs.tokens, inputs.dim);
    parallel_for(pieces.number(), [&](std::int64_t p) {
      ForwardPass<T>(inputs, pieces.blocks(p), from, y.data<T>(), final_state.data<T>(), saved)
          .run(sequences);
    });
  });
}

}  // namespace hax
