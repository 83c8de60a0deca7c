// Forward of ssd in pieces of at most 16 tokens (ssd.md, "On a CPU").

#include "engine/dispatch.h"
#include "ops/ssd/ssd_piece.h"

namespace hax {
namespace {

using namespace ssd_tile;

// Some heads of all sequences.
template <class T>
class ForwardPass {
 public:
  // initial and states may be null: zero, not wanted.
  ForwardPass(const Inputs<T>& in, HeadRange heads, const T* initial, T* y, T* final_state,
              T* states)
      : in_(in),
        heads_(heads),
        initial_(initial),
        y_(y),
        final_(final_state),
        states_(states),
        decays_(in_),
        state_(in_.heads * in_.state_rows()),
        Ct_(in_.state),
        Gt_(kWidth),
        read_at_(kWidth),
        decay_(in_.group_heads),
        Mt_(kWidth * in_.group_heads),
        x_(kWidth * in_.dim_rows),
        weighted_(kWidth * in_.dim_rows) {}

  void run(const Sequences& sequences) {
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t all = in_.heads * in_.state_size();
      if (initial_ == nullptr) {
        std::ranges::fill(state_, Row<T>{});
      } else {
        load_states(in_, heads_, initial_ + s * all, state_.data());
      }
      const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
      for (std::int64_t block = begin; block < end; block += kSsdBlock) {
        if (states_ != nullptr) save_states();
        const std::int64_t block_end = std::min(block + kSsdBlock, end);
        for (std::int64_t t = block; t < block_end; t += in_.piece_len) {
          run_piece(in_.piece(t, block_end));
        }
      }
      store_states(in_, heads_, state_.data(), final_ + s * all);
    }
  }

 private:
  void save_states() {
    for (std::int64_t r = heads_.begin * in_.state; r < heads_.end * in_.state; ++r) {
      T* to = states_ + r * in_.head_dim;
      for (std::int64_t q = 0; q < in_.dim_rows; ++q) {
        const Row<T>& row = state_[r * in_.dim_rows + q];
        std::copy_n(row.v, std::min<std::int64_t>(in_.width(q), kWidth), to + q * kWidth);
      }
    }
    states_ += in_.heads * in_.state_size();
  }

  void run_piece(const Piece& piece) {
    decays_.load(piece);
    std::ranges::fill(read_at_, Row<T>{});
    for (std::int64_t i = 0; i < piece.wanted; ++i) read_at_[piece.at[i]].v[i] = 1;
    in_.for_each_group(heads_, [&](std::int64_t g, std::int64_t begin, std::int64_t end) {
      if (piece.wanted > 0) {
        correlate(piece, g);
        weigh(piece, begin, end);
      }
      for (std::int64_t h = begin; h < end; ++h) {
        const T* x = in_.x + piece.begin * in_.channels + h * in_.head_dim;
        Row<T>* state = &state_[h * in_.state_rows()];
        if (piece.wanted > 0) read(piece, h, h - begin, x, state);
        in_.pack(x, piece.len, decays_.weight(h), decays_.step(), weighted_.data());
        const T total = decays_.since(h)[(piece.len - 1) * decays_.step()];
        advance(in_, piece, g, total, weighted_.data(), state, state);
      }
    });
  }

  // Gt[j][i] = B_j . C_i over the tokens and the wanted rows of a piece.
  [[gnu::noinline]] void correlate(const Piece& piece, std::int64_t g) {
    const std::int64_t stride = in_.projected, first = g * in_.state;
    transpose_in(in_.C + piece.row * stride + first, stride, piece.wanted, in_.state, Ct_.data());
    const T* B = in_.B + piece.begin * stride + first;
    for_tiles<kRowsByRow<T>>(piece.len, [&]<int kRows>(std::int64_t j) {
      Tile<kRows, T> tile;
      tile.clear();
      tile.add(in_.state, ByRow<T>{B + j * stride, stride}, {Ct_[0].v, kWidth});
      tile.store(Gt_[j].v, kWidth);
    });
  }

  // Mt[j][h][i] = what x_j contributes to row i: Gt decayed from j to i, times dt_j, and D for j's
  // own row. The heads first..last-1 of a group side by side: each decay waits for the one of the
  // token after.
  [[gnu::noinline]] void weigh(const Piece& piece, std::int64_t first, std::int64_t last) {
    std::ranges::fill(decay_, Row<T>{});
    const std::int64_t step = decays_.step();
    for (std::int64_t j = piece.len - 1; j >= 0; --j) {
      const T *next_alpha = decays_.alpha(first) + (j + 1) * step, *D = in_.D + first;
      const T* dt = decays_.dt(first) + j * step;
      const Row<T>&G = Gt_[j], &own = read_at_[j];
      Row<T>* M = &Mt_[j * in_.group_heads];
      for (std::int64_t h = 0; h < last - first; ++h) {
        multiply_add_flushed(decay_[h], next_alpha[h], own);
        const Row<T>& decay = decay_[h];
        const T factor = dt[h], skip = D[h];
#pragma omp simd
        for (int k = 0; k < kWidth; ++k) {
          M[h].v[k] = G.v[k] * decay.v[k] * factor + skip * own.v[k];
        }
      }
    }
  }

  // y = since C S + M x of head h, which is number `index` in Mt.
  [[gnu::noinline]] void read(const Piece& piece, std::int64_t h, std::int64_t index, const T* x,
                              const Row<T>* state) {
    Right<T> values{x, in_.channels};
    if (in_.head_dim % kWidth != 0) {
      const T one = 1;
      in_.pack(x, piece.len, &one, 0, x_.data());
      values = {x_[0].v, in_.stride()};
    }
    T since[kWidth];
    for (std::int64_t i = 0; i < piece.wanted; ++i) {
      since[i] = decays_.since(h)[piece.at[i] * decays_.step()];
    }
    const Row<T>* Mt = &Mt_[index];
    for_tiles<kRowsByColumn<T>>(piece.wanted, [&]<int kRows>(std::int64_t i) {
      for (std::int64_t q = 0; q < in_.dim_rows; ++q) {
        Tile<kRows, T> tile;
        tile.clear();
        tile.add(in_.state, ByColumn<T>{Ct_[0].v + i, kWidth}, {state[q].v, in_.stride()});
        tile.scale_rows(since + i);
        tile.add(piece.len, ByColumn<T>{Mt->v + i, in_.group_heads * kWidth},
                 {values.data + q * kWidth, values.step});
        tile.store(y_ + (piece.row + i) * in_.channels + h * in_.head_dim + q * kWidth,
                   in_.channels, in_.width(q));
      }
    });
  }

  const Inputs<T>& in_;
  HeadRange heads_;
  const T* initial_;
  T *y_, *final_, *states_;  // states_: of the next block
  Decays<T> decays_;
  std::vector<Row<T>> state_;    // [heads, state, dim_rows]
  std::vector<Row<T>> Ct_, Gt_;  // [state], [token], over the wanted rows
  std::vector<Row<T>> read_at_;  // [token], one where row i belongs to the token
  std::vector<Row<T>> decay_;    // [head of the group]
  std::vector<Row<T>> Mt_;       // [token, head of the group]
  std::vector<Row<T>> x_, weighted_;
};

}  // namespace

void ssd_forward(Cpu, const SsdInputs& in, const Sequences& sequences, const SsdOptions& options,
                 Tensor& y, Tensor& final_state, Tensor& states) {
  visit_float(in.x.dtype(), [&]<class T>() {
    const T* initial = in.initial.defined() ? in.initial.data<T>() : nullptr;
    T* saved = states.defined() ? states.data<T>() : nullptr;
    const Inputs<T> inputs(in, options);
    const Pieces pieces = head_pieces(sequences.tokens(), inputs.heads);
    parallel_for(pieces.number(), [&](std::int64_t p) {
      ForwardPass<T>(inputs, {pieces.begin(p), pieces.end(p)}, initial, y.data<T>(),
                     final_state.data<T>(), saved)
          .run(sequences);
    });
  });
}

}  // namespace hax
