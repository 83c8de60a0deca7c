// The inputs of the selective scan on the CPU, and how its channels are cut into pieces for
// threads. Included by selective_scan_cpu.cpp and selective_scan_backward_cpu.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

#include "engine/parallel.h"
#include "ops/selective_scan/selective_scan_block.h"
#include "ops/selective_scan/selective_scan_states.h"

namespace hax::scan {

/// Blocks begin..end-1 of the channels.
struct BlockRange {
  std::int64_t begin, end;
};

/// Channels of a piece, at least. Each piece finds a chunk's wanted rows, and sums dB and dC over
/// its channels, anew.
inline constexpr std::int64_t kChannelsWorthAPiece = 32;

/// The channels of a pack in pieces of whole blocks: in several where it is long enough to occupy
/// many threads. A batch of the paper's task is cut into shards instead.
template <class T>
class ChannelPieces {
 public:
  ChannelPieces(std::int64_t tokens, std::int64_t dim)
      : units_(tokens < 2 * kRowsWorthAPiece ? 1 : dim / kChannelsWorthAPiece, 1),
        blocks_((dim + kLanes<T> - 1) / kLanes<T>) {}

  std::int64_t number() const { return units_.number(); }
  BlockRange blocks(std::int64_t piece) const {
    constexpr std::int64_t kBlocks = kChannelsWorthAPiece / kLanes<T>;
    const bool is_last = piece + 1 == number();
    return {units_.begin(piece) * kBlocks, is_last ? blocks_ : units_.end(piece) * kBlocks};
  }

 private:
  Pieces units_;
  std::int64_t blocks_;
};

/// The inputs, laid out for blocks.
template <class T>
struct Inputs {
  std::int64_t tokens, dim, state, blocks;
  const T *u, *dt, *B, *C;
  std::vector<Lanes<T>> rate;     // [blocks, state], A log2(e): decays are powers of two
  std::vector<Lanes<T>> fastest;  // [blocks], the least of the rates
  std::vector<Lanes<T>> D;        // [blocks]
  std::span<const std::int32_t> rows;
  bool all_rows;

  // any_rows: whether y, or a gradient of it, is wanted at all.
  explicit Inputs(const ScanInputs& in, bool any_rows = true)
      : tokens(in.u.size(0)),
        dim(in.u.size(1)),
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

  // The states of some blocks of sequence s: [S, E, N], or null for zero -> [blocks, state].
  void load_sequence(const T* all, std::int64_t s, BlockRange range,
                     std::vector<Lanes<T>>& to) const {
    if (all == nullptr) {
      std::ranges::fill(to, Lanes<T>{});
      return;
    }
    for (std::int64_t block = range.begin; block < range.end; ++block) {
      const T* from = all + (s * dim + first(block)) * state;
      load_states(from, width(block), state, to.data() + block * state);
    }
  }
  // The reverse.
  void store_sequence(const std::vector<Lanes<T>>& from, std::int64_t s, BlockRange range,
                      T* all) const {
    for (std::int64_t block = range.begin; block < range.end; ++block) {
      T* to = all + (s * dim + first(block)) * state;
      store_states(from.data() + block * state, width(block), state, to);
    }
  }

  // The first row wanted from a token on.
  std::int64_t first_row(std::int64_t token) const {
    return all_rows ? token : std::ranges::lower_bound(rows, token) - rows.begin();
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

  // Fetches what load_block() will read of a later block.
  void announce_block(const Chunk& chunk, std::int64_t block) const {
    for (std::int64_t i = 0; i < chunk.len; ++i) {
      const std::int64_t at = (chunk.begin + i) * dim + first(block);
      announce_load(u + at);
      announce_load(dt + at);
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

}  // namespace hax::scan
