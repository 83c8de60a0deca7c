// Backward of ssd on the CPU for some of the heads, in pieces of at most 16 tokens (ssd.md, "On a
// CPU"). Included by ssd_backward_cpu.cpp alone.
#pragma once

#include "ops/ssd/ssd_group.h"
#include "ops/ssd/ssd_piece.h"

namespace hax::ssd_tile {

// The rows of two constant matrices: the identity, and ones before the diagonal.
template <class T>
struct Masks {
  Row<T> own[kWidth]{}, before[kWidth]{};

  constexpr Masks() {
    for (int t = 0; t < kWidth; ++t) {
      own[t].v[t] = 1;
      for (int j = 0; j < t; ++j) before[t].v[j] = 1;
    }
  }
};
template <class T>
inline constexpr Masks<T> kMasks;

// Some blocks of kSsdBlock tokens of a sequence.
struct BlockRange {
  std::int64_t begin, end;  // tokens
  std::int64_t first;       // block of the pack: where the states before `begin` are saved
};

inline std::int64_t blocks_in(std::int64_t tokens) { return (tokens + kSsdBlock - 1) / kSsdBlock; }

// Some heads. Sequences in order, the blocks of each from the last to the first. For every block
// the states before its pieces are computed again, then the pieces run from the last to the first.
template <class T>
class BackwardPass {
 public:
  // dy and dfinal may be undefined: zero.
  BackwardPass(const Inputs<T>& in, HeadRange heads, const Tensor& dy, const Tensor& dfinal,
               const Tensor& states, SsdGradients& out)
      : in_(in),
        heads_(heads),
        dy_(dy.defined() ? dy.data<T>() : nullptr),
        dfinal_(dfinal.defined() ? dfinal.data<T>() : nullptr),
        states_(states.data<T>()),
        dx_(out.dx.data<T>()),
        ddt_(out.ddt.data<T>()),
        dinitial_(out.dinitial.defined() ? out.dinitial.data<T>() : nullptr),
        decays_(in_),
        state_((kSsdBlock + in_.piece_len - 1) / in_.piece_len * in_.heads * in_.state_rows()),
        dstate_(in_.heads * in_.state_rows()),
        group_(in_),
        from_on_(kWidth),
        decay_(in_.group_heads),
        L_(kWidth * in_.group_heads),
        xt_(in_.head_dim),
        dyt_(in_.head_dim),
        weighted_(kWidth * in_.dim_rows),
        dy_rows_(kWidth * in_.dim_rows),
        M_(kWidth),
        dA_(in_.heads),
        dD_(in_.channels) {}

  // Sequence s, first of all; all its blocks, from the last to the first; and its end.
  void enter(std::int64_t s) {
    if (dfinal_ == nullptr) {
      std::ranges::fill(dstate_, Row<T>{});
    } else {
      load_states(in_, heads_, dfinal_ + s * in_.heads * in_.state_size(), dstate_.data());
    }
  }
  void run(const BlockRange& range, const ColumnGradients<T>& to) {
    for (std::int64_t b = blocks_in(range.end - range.begin) - 1; b >= 0; --b) {
      const std::int64_t block = range.begin + b * kSsdBlock;
      run_block(block, std::min(block + kSsdBlock, range.end),
                states_ + (range.first + b) * in_.heads * in_.state_size(), to);
    }
  }
  void leave(std::int64_t s) {
    if (dinitial_ == nullptr) return;
    store_states(in_, heads_, dstate_.data(), dinitial_ + s * in_.heads * in_.state_size());
  }

  // The gradients of the parameters, after the last sequence.
  void write_parameters(T* dA, T* dD) const {
    for (std::int64_t h = heads_.begin; h < heads_.end; ++h) {
      dA[h] = 0;
      for (const T x : dA_[h].v) dA[h] += x;
      dD[h] = 0;
      for (std::int64_t p = 0; p < in_.head_dim; ++p) dD[h] += dD_[h * in_.head_dim + p];
    }
  }

 private:
  void run_block(std::int64_t begin, std::int64_t end, const T* saved,
                 const ColumnGradients<T>& to) {
    std::vector<Piece> pieces;
    for (std::int64_t t = begin; t < end; t += in_.piece_len) {
      pieces.push_back(in_.piece(t, end));
      if (dy_ == nullptr) pieces.back().wanted = 0;
    }
    const std::int64_t all = in_.heads * in_.state_rows();
    for (std::int64_t r = heads_.begin * in_.state; r < heads_.end * in_.state; ++r) {
      const T* from = saved + r * in_.head_dim;
      for (std::int64_t q = 0; q < in_.dim_rows; ++q) {
        Row<T>& row = state_[r * in_.dim_rows + q];
        row = {};
        std::copy_n(from + q * kWidth, std::min<std::int64_t>(in_.width(q), kWidth), row.v);
      }
    }
    for (std::size_t c = 0; c + 1 < pieces.size(); ++c) {
      decays_.load(pieces[c]);
      for (std::int64_t h = heads_.begin; h < heads_.end; ++h) {
        in_.pack(in_.x + pieces[c].begin * in_.channels + h * in_.head_dim, pieces[c].len,
                 decays_.weight(h), decays_.step(), weighted_.data());
        const Row<T>* state = &state_[c * all + h * in_.state_rows()];
        advance(in_, pieces[c], h / in_.group_heads, total(pieces[c], h), weighted_.data(), state,
                &state_[(c + 1) * all + h * in_.state_rows()]);
      }
    }
    for (std::size_t c = pieces.size(); c-- > 0;) run_piece(pieces[c], &state_[c * all], to);
  }

  T total(const Piece& piece, std::int64_t h) const {
    return decays_.since(h)[(piece.len - 1) * decays_.step()];
  }

  void run_piece(const Piece& piece, const Row<T>* states, const ColumnGradients<T>& to) {
    decays_.load(piece);
    std::ranges::fill(from_on_, Row<T>{});
    const std::int64_t first = heads_.begin * in_.head_dim, last = heads_.end * in_.head_dim;
    for (std::int64_t i = 0; i < piece.wanted; ++i) {
      for (std::int64_t t = 0; t <= piece.at[i]; ++t) from_on_[t].v[i] = 1;
      const T* x = in_.x + (piece.begin + piece.at[i]) * in_.channels;
      const T* dy = dy_ + (piece.row + i) * in_.channels;
#pragma omp simd
      for (std::int64_t e = first; e < last; ++e) dD_[e] += dy[e] * x[e];
    }
    in_.for_each_group(heads_, [&](std::int64_t g, std::int64_t begin, std::int64_t end) {
      group_.load(piece, g);
      decay(piece, begin, end);
      for (std::int64_t h = begin; h < end; ++h) {
        run_head(piece, h, states + h * in_.state_rows());
      }
      group_.store(piece, g, to);
    });
  }

  // L[i][h][j] = decay from token j to wanted row i, and decay_[h][j] = from j to the piece's end.
  [[gnu::noinline]] void decay(const Piece& piece, std::int64_t begin, std::int64_t end) {
    std::ranges::fill(decay_, Row<T>{});
    const std::int64_t first = begin % in_.group_heads, last = first + end - begin;
    const T* alpha = decays_.alpha(begin - first);
    for (std::int64_t t = 0, i = 0; t < piece.len; ++t, alpha += decays_.step()) {
      const bool wanted = i < piece.wanted && piece.at[i] == t;
      Row<T>* L = &L_[i * in_.group_heads];
      for (std::int64_t h = first; h < last; ++h) {
        multiply_add_flushed(decay_[h], alpha[h], kMasks<T>.own[t]);
        if (wanted) L[h] = decay_[h];
      }
      i += wanted;
    }
  }

  struct HeadRows {
    Row<T> dt{};           // of each token
    Row<T> since{};        // of each wanted row
    Row<T> weight;         // dt times the decay to the piece's end
    Row<T> from_inside{};  // [j] sum_i G_ij L_ij dy_i . x_j
    Row<T> from_state{};   // [j] (B_j dS) . x_j, not yet decayed
    Row<T> to_outputs{};   // [i] dy_i . (C_i S), not yet decayed
    Row<T> carried{};      // sums to S . dS
  };

  void run_head(const Piece& piece, std::int64_t h, const Row<T>* state) {
    HeadRows rows;
    const std::int64_t step = decays_.step();
    for (std::int64_t j = 0; j < piece.len; ++j) rows.dt.v[j] = decays_.dt(h)[j * step];
    for (std::int64_t i = 0; i < piece.wanted; ++i) {
      rows.since.v[i] = decays_.since(h)[piece.at[i] * step];
    }
    const Row<T>& until = decay_[h % in_.group_heads];
#pragma omp simd
    for (int k = 0; k < kWidth; ++k) rows.weight.v[k] = rows.dt.v[k] * until.v[k];

    const std::int64_t first = h * in_.head_dim;
    transpose_in(in_.x + piece.begin * in_.channels + first, in_.channels, piece.len, in_.head_dim,
                 xt_.data());
    if (piece.wanted > 0) {
      const T* dy = dy_ + piece.row * in_.channels + first;
      transpose_in(dy, in_.channels, piece.wanted, in_.head_dim, dyt_.data());
      inside(piece, h, rows);
      outputs(state, rows);
    }
    Row<T>* dstate = &dstate_[h * in_.state_rows()];
    inputs(piece, h, dstate, rows);
    projections(dstate, rows);
    retreat(piece, h, state, dstate, rows);
    steps(piece, h, rows);
  }

  // Gradients by way of M: that of G, and K for steps(); then M itself for inputs().
  [[gnu::noinline]] void inside(const Piece& piece, std::int64_t h, HeadRows& rows) {
    for_tiles<kRowsByColumn<T>>(piece.wanted, [&]<int kRows>(std::int64_t i) {
      Tile<kRows, T> tile;
      tile.clear();
      tile.add(in_.head_dim, ByColumn<T>{dyt_[0].v + i, kWidth}, {xt_[0].v, kWidth});
      tile.store(M_[i].v, kWidth);
    });
    const T skip = in_.D[h];
    for (std::int64_t i = 0; i < piece.wanted; ++i) {
      const Row<T>&G = group_.G[i], &own = kMasks<T>.own[piece.at[i]];
      const Row<T>& L = L_[i * in_.group_heads + h % in_.group_heads];
      Row<T>&M = M_[i], &dG = group_.dG[i], &K = K_[i];
#pragma omp simd
      for (int k = 0; k < kWidth; ++k) {
        const T through = L.v[k] * M.v[k], weight = G.v[k] * L.v[k];
        dG.v[k] += through * rows.dt.v[k];
        K.v[k] = G.v[k] * through;
        M.v[k] = weight * rows.dt.v[k] + skip * own.v[k];
      }
    }
  }

  // dC += since dy S^T
  [[gnu::noinline]] void outputs(const Row<T>* state, HeadRows& rows) {
    for_tiles<kRowsByRow<T>>(in_.state, [&]<int kRows>(std::int64_t n) {
      Tile<kRows, T> tile;
      tile.clear();
      tile.add(in_.head_dim, ByRow<T>{state[n * in_.dim_rows].v, in_.stride()},
               {dyt_[0].v, kWidth});
      spread(tile, n, group_.C, group_.dC, rows.since, rows.to_outputs);
    });
  }

  // dB += weight x dS^T
  [[gnu::noinline]] void projections(const Row<T>* dstate, HeadRows& rows) {
    for_tiles<kRowsByRow<T>>(in_.state, [&]<int kRows>(std::int64_t n) {
      Tile<kRows, T> tile;
      tile.clear();
      tile.add(in_.head_dim, ByRow<T>{dstate[n * in_.dim_rows].v, in_.stride()},
               {xt_[0].v, kWidth});
      spread(tile, n, group_.B, group_.dB, rows.weight, rows.from_state);
    });
  }

  // gradient += tile * factor and sum += tile * matrix, for rows n, n + 1, ... of the matrix.
  template <int kRows>
  static void spread(Tile<kRows, T>& tile, std::int64_t n, const std::vector<Row<T>>& matrix,
                     std::vector<Row<T>>& gradient, const Row<T>& factor, Row<T>& sum) {
    const Row<T>* from = &matrix[n];
    Row<T>* to = &gradient[n];
    Row<T> local = sum;
    tile.each([&](int r, int k, T x) {
      to[r].v[k] += x * factor.v[k];
      local.v[k] += x * from[r].v[k];
    });
    sum = local;
  }

  // dx = weight B dS + M^T dy
  [[gnu::noinline]] void inputs(const Piece& piece, std::int64_t h, const Row<T>* dstate,
                                const HeadRows& rows) {
    const T one = 1;
    if (piece.wanted > 0) {
      in_.pack(dy_ + piece.row * in_.channels + h * in_.head_dim, piece.wanted, &one, 0,
               dy_rows_.data());
    }
    for_tiles<kRowsByColumn<T>>(piece.len, [&]<int kRows>(std::int64_t j) {
      for (std::int64_t q = 0; q < in_.dim_rows; ++q) {
        Tile<kRows, T> tile;
        tile.clear();
        tile.add(in_.state, ByColumn<T>{group_.B[0].v + j, kWidth}, {dstate[q].v, in_.stride()});
        tile.scale_rows(rows.weight.v + j);
        if (piece.wanted > 0) {
          tile.add(piece.wanted, ByColumn<T>{M_[0].v + j, kWidth}, {dy_rows_[q].v, in_.stride()});
        }
        tile.store(dx_ + (piece.begin + j) * in_.channels + h * in_.head_dim + q * kWidth,
                   in_.channels, in_.width(q));
      }
    });
  }

  // dS = total dS + C^T since dy
  [[gnu::noinline]] void retreat(const Piece& piece, std::int64_t h, const Row<T>* state,
                                 Row<T>* dstate, HeadRows& rows) {
    if (piece.wanted > 0) {
      in_.pack(dy_ + piece.row * in_.channels + h * in_.head_dim, piece.wanted, rows.since.v, 1,
               dy_rows_.data());
    }
    const T factor = total(piece, h);
    const T* C = in_.C + piece.row * in_.projected + h / in_.group_heads * in_.state;
    const std::int64_t stride = in_.stride();
    Row<T> carried{};
    for_tiles<kRowsByColumn<T>>(in_.state, [&]<int kRows>(std::int64_t n) {
      for (std::int64_t q = 0; q < in_.dim_rows; ++q) {
        const T* S = state[n * in_.dim_rows + q].v;
        T* dS = dstate[n * in_.dim_rows + q].v;
        Tile<kRows, T> tile;
        tile.each([&](int r, int k, T& x) {
          x = dS[r * stride + k] * factor;
          carried.v[k] += x * S[r * stride + k];
        });
        if (piece.wanted > 0) {
          tile.add(piece.wanted, ByColumn<T>{C + n, in_.projected}, {dy_rows_[q].v, stride});
        }
        tile.store(dS, stride);
      }
    });
    rows.carried = carried;
  }

  // ddt and dA. The decay of token t multiplies whatever crosses it: what stood in the state
  // before the piece, or came from a token j < t, on its way to a row i >= t or to the piece's end.
  [[gnu::noinline]] void steps(const Piece& piece, std::int64_t h, HeadRows& rows) {
    const Row<T>& until = decay_[h % in_.group_heads];
    Row<T> to_end;  // [j] to the piece's end
#pragma omp simd
    for (int k = 0; k < kWidth; ++k) {
      to_end.v[k] = rows.from_state.v[k] * until.v[k];
      rows.to_outputs.v[k] *= rows.since.v[k];
    }
    Row<T> crossing[kWidth];  // sums of its rows
    std::int64_t i = piece.wanted;
    for (std::int64_t t = kWidth - 1; t >= 0; --t) {
      if (i > 0 && piece.at[i - 1] == t) {
        --i;
#pragma omp simd
        for (int k = 0; k < kWidth; ++k) rows.from_inside.v[k] += K_[i].v[k];
      }
      const Row<T>&before = kMasks<T>.before[t], &from_on = from_on_[t];
#pragma omp simd
      for (int k = 0; k < kWidth; ++k) {
        crossing[t].v[k] = (rows.from_inside.v[k] + to_end.v[k]) * rows.dt.v[k] * before.v[k] +
                           rows.to_outputs.v[k] * from_on.v[k] + rows.carried.v[k];
      }
    }
    sum_rows(crossing);
    const T A = in_.A[h];
    Row<T>&dlog = crossing[0], &dA = dA_[h];
#pragma omp simd
    for (int k = 0; k < kWidth; ++k) {
      dA.v[k] += dlog.v[k] * rows.dt.v[k];
      dlog.v[k] = dlog.v[k] * A + rows.from_inside.v[k] + to_end.v[k];
    }
    T* ddt = ddt_ + piece.begin * in_.heads + h;
    for (std::int64_t j = 0; j < piece.len; ++j) ddt[j * in_.heads] = dlog.v[j];
  }

  const Inputs<T>& in_;
  HeadRange heads_;
  const T *dy_, *dfinal_, *states_;
  T *dx_, *ddt_, *dinitial_;
  Decays<T> decays_;
  std::vector<Row<T>> state_;   // [piece, heads, state, dim_rows], before each piece
  std::vector<Row<T>> dstate_;  // [heads, state, dim_rows], after the current piece
  Group<T> group_;
  std::vector<Row<T>> from_on_;    // [token], one for the wanted rows from it on
  std::vector<Row<T>> decay_, L_;  // [head of the group], [wanted, head of the group]
  std::vector<Row<T>> xt_, dyt_;   // [head_dim]
  std::vector<Row<T>> weighted_, dy_rows_;
  std::vector<Row<T>> M_;         // [wanted], over tokens
  std::array<Row<T>, kWidth> K_;  // [wanted], G L (dy . x) over tokens
  std::vector<Row<T>> dA_;        // [heads], lane by lane
  std::vector<T> dD_;             // [channels]
};

}  // namespace hax::ssd_tile
