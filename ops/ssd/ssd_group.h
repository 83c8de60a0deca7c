// What the heads of a group share in the backward of ssd on the CPU. Included by
// ssd_backward.h alone.
#pragma once

#include <vector>

#include "ops/ssd/ssd_piece.h"

namespace hax::ssd_tile {

/// Gradients of B and C, [.., groups N], the first rows of which belong to a token and to a row
/// wanted.
template <class T>
struct ColumnGradients {
  T *dB, *dC;
  std::int64_t token, row;
};

/// B, C and G = C B^T of one group over a piece, and their gradients, gathered from the group's
/// heads. The tokens, or the wanted rows, are the columns of B and C.
template <class T>
class Group {
 public:
  std::vector<Row<T>> B, C;    ///< [state], over tokens and over wanted rows
  std::vector<Row<T>> dB, dC;  ///< [state]
  std::vector<Row<T>> G, dG;   ///< [wanted], over tokens

  explicit Group(const Inputs<T>& in)
      : B(in.state),
        C(in.state),
        dB(in.state),
        dC(in.state),
        G(kWidth),
        dG(kWidth),
        in_(in),
        dGt_(kWidth) {}

  [[gnu::noinline]] void load(const Piece& piece, std::int64_t g) {
    const std::int64_t stride = in_.projected, first = g * in_.state;
    transpose_in(in_.B + piece.begin * stride + first, stride, piece.len, in_.state, B.data());
    std::ranges::fill(dB, Row<T>{});
    if (piece.wanted == 0) return;
    transpose_in(in_.C + piece.row * stride + first, stride, piece.wanted, in_.state, C.data());
    std::ranges::fill(dC, Row<T>{});
    std::ranges::fill(dG, Row<T>{});
    for_tiles<kRowsByColumn<T>>(piece.wanted, [&]<int kRows>(std::int64_t i) {
      Tile<kRows, T> tile;
      tile.clear();
      tile.add(in_.state, ByColumn<T>{C[0].v + i, kWidth}, {B[0].v, kWidth});
      tile.store(G[i].v, kWidth);
    });
  }

  /// Adds what comes by way of G, and writes the gradients.
  [[gnu::noinline]] void store(const Piece& piece, std::int64_t g, const ColumnGradients<T>& to) {
    const std::int64_t stride = in_.projected, first = g * in_.state;
    if (piece.wanted > 0) {
      transpose_in(dG[0].v, kWidth, piece.wanted, kWidth, dGt_.data());
      add_product(piece.len, in_.B + piece.begin * stride + first, dGt_[0], dC);
      add_product(piece.wanted, in_.C + piece.row * stride + first, dG[0], dB);
      transpose_out(dC.data(), in_.state, piece.wanted,
                    to.dC + (piece.row - to.row) * stride + first, stride);
    }
    transpose_out(dB.data(), in_.state, piece.len,
                  to.dB + (piece.begin - to.token) * stride + first, stride);
  }

 private:
  // sum[n] += sum_d matrix[d][n] rows[d]
  void add_product(std::int64_t depth, const T* matrix, const Row<T>& rows,
                   std::vector<Row<T>>& sum) {
    for_tiles<kRowsByColumn<T>>(in_.state, [&]<int kRows>(std::int64_t n) {
      T* to = sum[n].v;
      Tile<kRows, T> tile;
      tile.each([=](int r, int k, T& x) { x = to[r * kWidth + k]; });
      tile.add(depth, ByColumn<T>{matrix + n, in_.projected}, {rows.v, kWidth});
      tile.store(to, kWidth);
    });
  }

  const Inputs<T>& in_;
  std::vector<Row<T>> dGt_;
};

}  // namespace hax::ssd_tile
