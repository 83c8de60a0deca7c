// What both passes of ssd on the CPU do with a piece of a sequence: at most 16 tokens, multiplied
// as one matrix. Included by ssd_cpu.cpp and ssd_backward.h alone.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "engine/parallel.h"
#include "ops/ssd/ssd_kernels.h"
#include "ops/ssd/ssd_tile.h"
#include "ops/vector_math.h"

namespace hax::ssd_tile {

/// Tokens begin..begin+len of the pack. Rows row..row+wanted of y, dy and C belong to its tokens
/// at[0], at[1], ..., counted from begin.
struct Piece {
  std::int64_t begin, len, row, wanted;
  std::array<std::int64_t, kWidth> at;
};

/// Heads begin..end-1.
struct HeadRange {
  std::int64_t begin, end;
};

/// Heads of a piece, at least: what the heads of a group share is computed once for each piece.
inline constexpr std::int64_t kHeadsWorthAPiece = 2;

/// The heads of a pack in pieces: in several where it is long enough to occupy many threads. A
/// batch of the paper's task is cut into shards instead.
inline Pieces head_pieces(std::int64_t tokens, std::int64_t heads) {
  return {heads, tokens < 2 * kRowsWorthAPiece ? heads : kHeadsWorthAPiece};
}

/// A product of decays below this is taken for zero: denormal numbers are slow, and what is left of
/// a state after such a decay is far below the rounding of anything.
template <class T>
inline constexpr T kTiny = sizeof(T) == 4 ? T(1e-30) : T(1e-290);

/// x = x * factor + offset, with tiny numbers taken for zero.
template <class T>
inline void multiply_add_flushed(Row<T>& x, T factor, const Row<T>& offset) {
#pragma omp simd
  for (int k = 0; k < kWidth; ++k) {
    const T next = x.v[k] * factor + offset.v[k];
    x.v[k] = next < kTiny<T> ? 0 : next;
  }
}

template <class T>
struct Inputs {
  std::int64_t heads, groups, group_heads, head_dim, state;
  std::int64_t channels;   // of x: heads head_dim
  std::int64_t projected;  // of B and C: groups state
  std::int64_t dim_rows;   // rows of 16 for the channels of a head
  std::int64_t piece_len;
  const T *x, *dt, *A, *B, *C, *D;
  std::span<const std::int32_t> rows;
  bool all_rows;

  Inputs(const SsdInputs& in, const SsdOptions& options)
      : heads(options.heads),
        groups(options.groups),
        group_heads(heads / groups),
        head_dim(in.x.size(1) / heads),
        state(in.B.size(1) / groups),
        channels(in.x.size(1)),
        projected(in.B.size(1)),
        dim_rows(rows_for(head_dim)),
        piece_len(std::min<std::int64_t>(options.chunk, kWidth)),
        x(in.x.data<T>()),
        dt(in.dt.data<T>()),
        A(in.A.data<T>()),
        B(in.B.data<T>()),
        C(in.C.data<T>()),
        D(in.D.data<T>()),
        all_rows(!in.rows.defined()) {
    if (!all_rows) rows = in.rows.values<std::int32_t>();
  }

  /// Numbers from one row of a head's matrices ([token, dim_rows], [state, dim_rows]) to the next.
  std::int64_t stride() const { return dim_rows * kWidth; }
  /// Rows of 16 of one head's state, [state, dim_rows].
  std::int64_t state_rows() const { return state * dim_rows; }
  /// Numbers of one head's state outside: [head_dim, state] or [state, head_dim].
  std::int64_t state_size() const { return state * head_dim; }
  /// Channels of row q of a head, at most 16 of them there.
  std::int64_t width(std::int64_t q) const { return head_dim - q * kWidth; }

  /// Calls f(g, first, last) for each group g of some heads: first..last-1 are those of the group.
  template <class F>
  void for_each_group(HeadRange range, F f) const {
    for (std::int64_t first = range.begin; first < range.end;) {
      const std::int64_t g = first / group_heads;
      const std::int64_t last = std::min((g + 1) * group_heads, range.end);
      f(g, first, last);
      first = last;
    }
  }

  /// The first row wanted from a token on.
  std::int64_t first_row(std::int64_t token) const {
    return all_rows ? token : std::ranges::lower_bound(rows, token) - rows.begin();
  }

  Piece piece(std::int64_t begin, std::int64_t end) const {
    Piece piece{begin, std::min(piece_len, end - begin), begin, 0, {}};
    if (all_rows) {
      piece.wanted = piece.len;
      for (std::int64_t i = 0; i < piece.len; ++i) piece.at[i] = i;
      return piece;
    }
    auto next = std::ranges::lower_bound(rows, begin);
    piece.row = next - rows.begin();
    for (; next != rows.end() && *next < begin + piece.len; ++next) {
      piece.at[piece.wanted++] = *next - begin;
    }
    return piece;
  }

  /// The channels of one head, for `count` tokens -> [count, dim_rows], row j times factors[j *
  /// step].
  [[gnu::noinline]] void pack(const T* from, std::int64_t count, const T* factors,
                              std::int64_t step, Row<T>* to) const {
    for (std::int64_t j = 0; j < count; ++j, from += channels) {
      const T factor = factors[j * step];
      for (std::int64_t q = 0; q < dim_rows; ++q, ++to) {
        const T* in = from + q * kWidth;
        if (width(q) >= kWidth) {
#pragma omp simd
          for (int k = 0; k < kWidth; ++k) to->v[k] = in[k] * factor;
        } else {
          *to = {};
          for (std::int64_t k = 0; k < width(q); ++k) to->v[k] = in[k] * factor;
        }
      }
    }
  }
};

/// What the recurrence does to the tokens of a piece, 16 heads side by side.
template <class T>
class Decays {
 public:
  explicit Decays(const Inputs<T>& in)
      : in_(in),
        rows_(rows_for(in.heads)),
        A_(rows_),
        dt_(kWidth * rows_),
        alpha_((kWidth + 1) * rows_),
        since_(kWidth * rows_),
        weight_(kWidth * rows_) {
    std::copy_n(in.A, in.heads, A_[0].v);
  }

  [[gnu::noinline]] void load(const Piece& piece) {
    for (std::int64_t j = 0; j < piece.len; ++j) {
      std::copy_n(in_.dt + (piece.begin + j) * in_.heads, in_.heads, dt_[j * rows_].v);
    }
    for (std::int64_t j = 0; j < piece.len; ++j) {
      for (std::int64_t r = 0; r < rows_; ++r) {
        const Row<T>& dt = dt_[j * rows_ + r];
        Row<T>& alpha = alpha_[j * rows_ + r];
#pragma omp simd
        for (int k = 0; k < kWidth; ++k) alpha.v[k] = fast_exp(dt.v[k] * A_[r].v[k]);
      }
    }
    std::fill_n(&alpha_[piece.len * rows_], rows_, Row<T>{});
    for (std::int64_t r = 0; r < rows_; ++r) {
      Row<T> since = one(), until = one();
      for (std::int64_t j = 0; j < piece.len; ++j) {
        multiply_flushed(since, alpha_[j * rows_ + r]);
        since_[j * rows_ + r] = since;
      }
      for (std::int64_t j = piece.len - 1; j >= 0; --j) {
        const Row<T>& dt = dt_[j * rows_ + r];
        Row<T>& weight = weight_[j * rows_ + r];
#pragma omp simd
        for (int k = 0; k < kWidth; ++k) weight.v[k] = until.v[k] * dt.v[k];
        multiply_flushed(until, alpha_[j * rows_ + r]);
      }
    }
  }

  /// Numbers from one token to the next in the arrays below, which begin with token 0 of head h.
  std::int64_t step() const { return rows_ * kWidth; }
  const T* dt(std::int64_t h) const { return &dt_[0].v[0] + h; }
  /// The decay of each token; zero for the token after the last.
  const T* alpha(std::int64_t h) const { return &alpha_[0].v[0] + h; }
  /// The decay from the piece's start up to and with a token.
  const T* since(std::int64_t h) const { return &since_[0].v[0] + h; }
  /// dt times the decay after the token up to the piece's end.
  const T* weight(std::int64_t h) const { return &weight_[0].v[0] + h; }

 private:
  static Row<T> one() {
    Row<T> row;
    std::fill_n(row.v, kWidth, T(1));
    return row;
  }
  static void multiply_flushed(Row<T>& x, const Row<T>& factor) {
#pragma omp simd
    for (int k = 0; k < kWidth; ++k) {
      const T next = x.v[k] * factor.v[k];
      x.v[k] = next < kTiny<T> ? 0 : next;
    }
  }

  const Inputs<T>& in_;
  std::int64_t rows_;
  std::vector<Row<T>> A_, dt_, alpha_, since_, weight_;
};

/// The state of one head after a piece: to = total from + sum_j B_j (outer) weighted_j, where
/// weighted_j is dt_j x_j decayed to the piece's end, [len, dim_rows]. `to` may be `from`.
template <class T>
[[gnu::noinline]] void advance(const Inputs<T>& in, const Piece& piece, std::int64_t group, T total,
                               const Row<T>* weighted, const Row<T>* from, Row<T>* to) {
  const T* B = in.B + piece.begin * in.projected + group * in.state;
  const std::int64_t stride = in.stride();
  for_tiles<kRowsByColumn<T>>(in.state, [&]<int kRows>(std::int64_t n) {
    for (std::int64_t q = 0; q < in.dim_rows; ++q) {
      const T* before = from[n * in.dim_rows + q].v;
      Tile<kRows, T> tile;
      tile.each([=](int r, int k, T& s) { s = before[r * stride + k] * total; });
      tile.add(piece.len, ByColumn<T>{B + n, in.projected}, {weighted[q].v, stride});
      tile.store(to[n * in.dim_rows + q].v, stride);
    }
  });
}

/// States of some heads: [heads, head_dim, state] as the caller sees them -> [heads, state,
/// dim_rows], and back.
template <class T>
void load_states(const Inputs<T>& in, HeadRange range, const T* all, Row<T>* states) {
  std::vector<Row<T>> columns(in.state);
  for (std::int64_t h = range.begin; h < range.end; ++h) {
    const T* from = all + h * in.state_size();
    Row<T>* to = states + h * in.state_rows();
    for (std::int64_t q = 0; q < in.dim_rows; ++q) {
      const std::int64_t count = std::min<std::int64_t>(in.width(q), kWidth);
      transpose_in(from + q * kWidth * in.state, in.state, count, in.state, columns.data());
      for (std::int64_t n = 0; n < in.state; ++n) to[n * in.dim_rows + q] = columns[n];
    }
  }
}
template <class T>
void store_states(const Inputs<T>& in, HeadRange range, const Row<T>* states, T* all) {
  std::vector<Row<T>> columns(in.state);
  for (std::int64_t h = range.begin; h < range.end; ++h) {
    const Row<T>* from = states + h * in.state_rows();
    T* to = all + h * in.state_size();
    for (std::int64_t q = 0; q < in.dim_rows; ++q) {
      const std::int64_t count = std::min<std::int64_t>(in.width(q), kWidth);
      for (std::int64_t n = 0; n < in.state; ++n) columns[n] = from[n * in.dim_rows + q];
      transpose_out(columns.data(), in.state, count, to + q * kWidth * in.state, in.state);
    }
  }
}

}  // namespace hax::ssd_tile
