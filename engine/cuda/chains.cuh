// Sums along time that must run from left to right, to give the CPU's numbers to the bit. A thread
// takes a chain: one column of one sequence. It does nothing but add; what it adds is fetched ahead
// by the other threads of its block, so that a step costs one dependent addition and no load.
#pragma once

#include "engine/cuda/pieces.cuh"

namespace hax::cuda {

/// What a chain runs over.
struct ChainPlace {
  std::int64_t sequence, begin, end;  ///< tokens
  std::int64_t column;
};

namespace detail {

inline constexpr int kChainThreads = 256, kChainTile = 2048;
inline constexpr int kChainAhead = 16;  // numbers in registers at once

// Block (s, c): sequence s, columns 32 c and following, one a lane of the first warp.
template <bool kBackward, class F>
__global__ void __launch_bounds__(kChainThreads)
    chain_kernel(F f, const std::int32_t* offsets, std::int64_t columns) {
  HAX_SHARED(tiles, double[2][kChainTile]);
  const std::int64_t s = blockIdx.x, begin = offsets[s], end = offsets[s + 1];
  const std::int64_t first = std::int64_t{blockIdx.y} * kWarp;
  const int width = static_cast<int>(columns - first < kWarp ? columns - first : kWarp);
  // Groups of kChainAhead tokens never straddle two tiles.
  const int thread = static_cast<int>(threadIdx.x),
            per_tile = kChainTile / width / kChainAhead * kChainAhead;
  const auto token_of = [&](std::int64_t step) {
    return kBackward ? end - 1 - step : begin + step;
  };
  const auto steps_of = [&](std::int64_t tile) {
    const std::int64_t left = end - begin - tile * per_tile;
    return static_cast<int>(left < per_tile ? left : per_tile);
  };
  const auto fetch = [&](std::int64_t tile) {
    double* to = tiles[tile % 2];
    for (int i = thread - kWarp; i < steps_of(tile) * width; i += kChainThreads - kWarp) {
      const ChainPlace place{s, begin, end, first + i % width};
      to[i] = f.value(place, token_of(tile * per_tile + i / width));
    }
  };
  const ChainPlace place{s, begin, end, first + thread};
  const bool chain = thread < width;
  typename F::State state{};
  if (chain) state = f.begin(place);
  const std::int64_t tiles_needed = ceil_div(end - begin, per_tile);
  if (thread >= kWarp && tiles_needed > 0) fetch(0);
  for (std::int64_t tile = 0; tile < tiles_needed; ++tile) {
    __syncthreads();
    if (thread >= kWarp) {
      if (tile + 1 < tiles_needed) fetch(tile + 1);
      continue;
    }
    if (!chain) continue;
    const double* from = tiles[tile % 2] + thread;
    const int steps = steps_of(tile);
    for (int i = 0; i < steps; i += kChainAhead) {
      double next[kChainAhead];
      const std::int64_t done = tile * per_tile + i;
      f.mark(state, place, done);
      if (i + kChainAhead <= steps) {
        HAX_UNROLL
        for (int k = 0; k < kChainAhead; ++k) next[k] = from[(i + k) * width];
        HAX_UNROLL
        for (int k = 0; k < kChainAhead; ++k) f.step(state, place, token_of(done + k), next[k]);
      } else {
        for (int k = i; k < steps; ++k) {
          f.step(state, place, token_of(tile * per_tile + k), from[k * width]);
        }
      }
    }
  }
  if (chain) f.finish(state, place);
}

}  // namespace detail

/// Runs a chain over every column of every sequence, from the last token to the first if
/// kBackward. F: a struct with a type State and, `const` and `__device__`,
///     double value(const ChainPlace&, int64 t): what token t of the column brings; called ahead;
///     State begin(const ChainPlace&);
///     void mark(const State&, const ChainPlace&, int64 steps): before steps 0, 16, 32, ..;
///     void step(State&, const ChainPlace&, int64 t, double value): in order;
///     void finish(const State&, const ChainPlace&).
template <bool kBackward = false, class F>
void run_chains(const std::int32_t* offsets, std::int64_t sequences, std::int64_t columns,
                const F& f) {
  launch(detail::chain_kernel<kBackward, F>,
         {dim3(blocks(sequences), blocks(ceil_div(columns, kWarp))), dim3(detail::kChainThreads)},
         f, offsets, columns);
}

/// Tokens of a piece whose running sums one block works out again, one a lane.
inline constexpr int kSumPiece = kWarp;
inline constexpr int kSumPitch = kSumPiece + 1;

/// Running sums at the beginning of every piece, which a chain leaves behind: [places, columns].
struct SumStarts {
  double* sums;  ///< null: none wanted
  std::int64_t columns;

  /// After `step` tokens, at least at every kSumPiece-th.
  __device__ void note(const ChainPlace& place, std::int64_t step, double sum) const {
    if (!sums || step % kSumPiece != 0) return;
    const std::int64_t piece = place.begin / kSumPiece + place.sequence + step / kSumPiece;
    sums[piece * columns + place.column] = sum;
  }
};

/// table [columns][kSumPitch]: running sums of the piece's rows of x [T, columns], from where the
/// chain was (`start` [columns]). All threads of the block call it; it ends with a barrier.
template <class T>
__device__ void sums_of_piece(const T* x, std::int64_t columns, const Piece& piece,
                              const double* start, double* table) {
  const int rows = static_cast<int>(piece.end - piece.begin);
  const int width = static_cast<int>(columns);  // 32-bit division is several times faster
  for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += static_cast<int>(blockDim.x)) {
    table[i % width * kSumPitch + i / width] = to_float(x[piece.begin * columns + i]);
  }
  __syncthreads();
  for (std::int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
    double sum = start[c];
    for (int r = 0; r < rows; ++r) {
      double& at = table[c * kSumPitch + r];
      sum += at;
      at = sum;
    }
  }
  __syncthreads();
}

/// Room for a block's table: shared memory (its first 48 KB are there without asking, some of them
/// for other things), or where that is too small a table in global memory.
class SumTables {
 public:
  SumTables(std::int64_t columns, std::int64_t places) : size_(columns * kSumPitch) {
    constexpr std::int64_t kRoom = (std::int64_t{40} << 10) / sizeof(double);
    if (size_ > kRoom) far_ = Tensor::empty({places, size_}, DType::float64, kCuda);
  }
  std::size_t shared_bytes() const {
    return far_.defined() ? 0 : static_cast<std::size_t>(size_) * sizeof(double);
  }
  /// A kernel's argument for table_of(); null: shared memory.
  double* far() { return far_.defined() ? far_.data<double>() : nullptr; }

 private:
  std::int64_t size_;
  Tensor far_;
};
__device__ inline double* table_of(double* far, std::int64_t columns) {
  return far ? far + std::int64_t{blockIdx.x} * columns * kSumPitch : dynamic_shared<double>();
}

}  // namespace hax::cuda
