// What the kernels of selective_scan for 16 states in float32 share: 16 tokens of 32 channels on
// their way through shared memory, two such tiles ahead. Page: selective_scan.md, "On CUDA"
#pragma once

#include "engine/cuda/async_copy.cuh"
#include "ops/selective_scan/selective_scan_pieces.cuh"

namespace hax::scan_cuda {

inline constexpr int kTileTokens = static_cast<int>(kScanChunk), kTileChannels = 32;
inline constexpr int kTileStates = 16;
// Rows of a tile lie so far apart that 8 channels of 4 tokens are in different banks.
inline constexpr int kTileRow = kTileChannels + 8;
static_assert(kTileTokens == 16);

/// Whether the kernels for 16 states take these inputs. dy, which may be null, too.
inline bool has_16_states(const Inputs<float>& in, const float* dy) {
  return in.state == kTileStates && in.dim % kTileChannels == 0 && in.in_quads &&
         cuda::starts_at_quad(dy);
}
template <class T>
bool has_16_states(const Inputs<T>&, const T*) {
  return false;
}

/// A tile. Tokens that do not exist are zero, and so are C and dy where a row is not wanted: that
/// changes no state.
struct Tile {
  const float *u, *dt, *dy;  // [kTileTokens, kTileRow]
  const float *B, *C;        // [kTileTokens, kTileStates]
  const std::int32_t* row;   // [kTileTokens], -1: not wanted, or no token

  __device__ static float2 two(const float* from) { return *reinterpret_cast<const float2*>(from); }
  __device__ static float4 four(const float* from) {
    return *reinterpret_cast<const float4*>(from);
  }
};

/// The tiles of a piece, from its begin or, kBackward, from its end; then with dy too.
template <bool kBackward>
class Tiles {
 public:
  static constexpr int kTables = kBackward ? 3 : 2, kTable = kTileTokens * kTileRow;
  static constexpr int kSlot = kTables * kTable + 2 * kTileTokens * kTileStates;
  // A tile's rows are asked for until the next but one arrives.
  static constexpr int kSlots = 3, kRowSlots = 4;
  static constexpr int kFloats = kSlots * kSlot + kRowSlots * kTileTokens;

  /// `memory`: kFloats of the block's. All threads; the first two tiles are on their way then.
  __device__ Tiles(const Inputs<float>& in, const float* dy, const cuda::Piece& piece,
                   float* memory)
      : in_(in),
        dy_(dy),
        memory_(memory),
        rows_(reinterpret_cast<std::int32_t*>(memory + kSlots * kSlot)),
        begin_(static_cast<int>(piece.begin)),
        end_(static_cast<int>(piece.end)),
        count_((end_ - begin_ + kTileTokens - 1) / kTileTokens),
        token_(static_cast<int>(threadIdx.x) / 8),
        column_(static_cast<int>(threadIdx.x) % 8 * 4) {
    look_up(0);
    request(0);
    look_up(1);
    request(1);
    look_up(2);
  }
  __device__ int count() const { return count_; }
  __device__ int begin(int k) const {
    return begin_ + (kBackward ? count_ - 1 - k : k) * kTileTokens;
  }
  __device__ int end() const { return end_; }
  /// Tile k, in order. All threads call it; it has a barrier, behind which nobody uses tile k - 1.
  __device__ Tile next(int k) {
    cuda::wait_for_copies<1>();
    __syncthreads();
    request(k + 2);
    look_up(k + 3);
    return tile(k);
  }
  __device__ const std::int32_t* rows(int k) const { return rows_ + k % kRowSlots * kTileTokens; }

 private:
  __device__ float* slot(int k) const { return memory_ + k % kSlots * kSlot; }
  __device__ Tile tile(int k) const {
    const float* at = slot(k);
    const float* B = at + kTables * kTable;
    return {at, at + kTable, at + 2 * kTable, B, B + kTileTokens * kTileStates, rows(k)};
  }
  __device__ int row(int t) const {
    if (t >= end_) return -1;
    return in_.row_of == nullptr ? t : in_.row_of[t];
  }
  // Finds the rows that request(k) will read. A thread copies four channels of one token, and four
  // states of B, in the first half of the block, or C for another one.
  __device__ void look_up(int k) {
    if (k >= count_) return;
    const int half = static_cast<int>(threadIdx.x) % (kThreads / 2);
    const int t = begin(k) + half / 4;
    row_ = row(begin(k) + token_);
    state_row_ = static_cast<int>(threadIdx.x) >= kThreads / 2 ? row(t) : t < end_ ? t : -1;
  }
  __device__ void request(int k) const {
    if (k < count_) {
      float* to = slot(k);
      const int t = begin(k) + token_, at = token_ * kTileRow + column_;
      const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * kTileChannels + column_;
      const std::int64_t from = t * in_.dim + column;
      copy(t < end_, to + at, in_.u + from);
      copy(t < end_, to + kTable + at, in_.dt + from);
      if constexpr (kBackward) {
        copy(row_ >= 0 && dy_ != nullptr, to + 2 * kTable + at, dy_ + row_ * in_.dim + column);
      }
      const int half = static_cast<int>(threadIdx.x) % (kThreads / 2);
      const bool of_C = static_cast<int>(threadIdx.x) >= kThreads / 2;
      copy(state_row_ >= 0,
           to + kTables * kTable + (of_C ? kTileTokens * kTileStates : 0) + 4 * half,
           (of_C ? in_.C : in_.B) + std::int64_t{state_row_} * kTileStates + half % 4 * 4);
      if (column_ == 0) rows_[k % kRowSlots * kTileTokens + token_] = row_;
    }
    cuda::commit_copies();
  }
  __device__ static void copy(bool exists, float* to, const float* from) {
    if (exists) {
      cuda::copy_async<16>(to, from);
    } else {
      *reinterpret_cast<float4*>(to) = make_float4(0, 0, 0, 0);
    }
  }

  const Inputs<float>& in_;
  const float* dy_;
  float* memory_;
  std::int32_t* rows_;
  int begin_, end_, count_;
  int token_, column_;           // of the channels that this thread copies
  int row_ = 0, state_row_ = 0;  // of the next request
};

}  // namespace hax::scan_cuda
