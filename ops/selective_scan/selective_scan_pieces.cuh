// What the forward and the backward of selective_scan on CUDA share: how the work is cut, the tiles
// in shared memory, and the pass that hands states from piece to piece. Page: selective_scan.md
#pragma once

#include <algorithm>
#include <numbers>

#include "engine/cuda/pieces.cuh"
#include "ops/selective_scan/selective_scan_kernels.h"

namespace hax::scan_cuda {

/// A thread keeps 4 states of one channel in registers; as many lanes as a channel needs, a power
/// of two, lie side by side in a warp. A block has the channels that 128 threads have room for.
inline constexpr int kThreads = 128, kStates = 4;
/// States that one launch can take; more are done in several.
inline constexpr std::int64_t kMaxStates = std::int64_t{kStates} * cuda::kWarp;

/// How one launch is cut. From sizes alone.
struct Plan {
  int lane_bits;  // 2^lane_bits lanes a channel
  std::int64_t channel_blocks;
  std::int64_t length;  // tokens a piece, a multiple of kScanChunk
  std::int64_t places;  // of pieces
  bool in_pieces;       // more than one piece a sequence

  int channels() const { return kThreads >> lane_bits; }
  dim3 grid() const { return dim3(cuda::blocks(places), cuda::blocks(channel_blocks)); }
};

inline Plan make_plan(std::int64_t tokens, std::int64_t sequences, std::int64_t dim,
                      std::int64_t state) {
  Plan plan{};
  const std::int64_t states = std::min(state, kMaxStates);
  while ((std::int64_t{kStates} << plan.lane_bits) < states) ++plan.lane_bits;
  plan.channel_blocks = cuda::ceil_div(dim, plan.channels());
  // Pieces cost the recurrence a second time: only where sequences and channels alone leave most of
  // a device idle, and as long as about a thousand blocks allow.
  constexpr std::int64_t kEnough = 192, kWanted = 1024, kLeast = 128;
  plan.in_pieces = sequences > 0 && sequences * plan.channel_blocks < kEnough &&
                   tokens >= 2 * kLeast * sequences;
  std::int64_t length = std::max(kLeast, tokens * plan.channel_blocks / kWanted);
  if (!plan.in_pieces) length = tokens + 1;  // every sequence is one piece
  plan.length = cuda::ceil_div(length, kScanChunk) * kScanChunk;
  plan.places = cuda::piece_places(tokens, sequences, plan.length);
  return plan;
}

/// The inputs of a kernel; states first_state .. first_state + lanes * kStates - 1 are its.
template <class T>
struct Inputs {
  cuda::Pieces pieces;
  const T *u, *dt, *A, *B, *C, *D;
  const std::int32_t* row_of;  // [T], null: row t
  std::int64_t dim, state, first_state;
  int lane_bits;

  Inputs(const ScanInputs& in, const Sequences& sequences, const Plan& plan, const Tensor& row_at)
      : pieces{sequences.offsets_on(kCuda).template data<std::int32_t>(), sequences.count(),
               plan.length},
        u(in.u.data<T>()),
        dt(in.dt.data<T>()),
        A(in.A.data<T>()),
        B(in.B.data<T>()),
        C(in.C.data<T>()),
        D(in.D.data<T>()),
        row_of(row_at.defined() ? row_at.data<std::int32_t>() : nullptr),
        dim(in.u.size(1)),
        state(in.A.size(1)),
        first_state(0),
        lane_bits(plan.lane_bits) {}

  // Where the states before the chunk that begins at t are, in chunks: [.., E, N] from there.
  __device__ std::int64_t chunk_place(std::int64_t s, std::int64_t t) const {
    const std::int64_t begin = pieces.offsets[s];
    return begin / kScanChunk + s + (t - begin) / kScanChunk;
  }
};

/// What a thread works on.
template <class T>
struct Place {
  int channel, lane;         // in the block, of the channel
  std::int64_t e, n, count;  // channel, first state, states that exist from there on

  __device__ explicit Place(const Inputs<T>& in)
      : channel(static_cast<int>(threadIdx.x) >> in.lane_bits),
        lane(static_cast<int>(threadIdx.x) & ((1 << in.lane_bits) - 1)),
        e(static_cast<std::int64_t>(blockIdx.y) * (kThreads >> in.lane_bits) + channel),
        n(in.first_state + lane * kStates),
        count(e < in.dim ? in.state - n : 0) {}

  __device__ std::int64_t at(const Inputs<T>& in, std::int64_t of) const {
    return (of * in.dim + e) * in.state + n;
  }
  // States of [.., E, N]; null, or states that do not exist: zero.
  template <class U>
  __device__ void load(const U* from, float (&to)[kStates]) const {
    for (int k = 0; k < kStates; ++k) {
      to[k] = from != nullptr && k < count ? cuda::to_float(from[k]) : 0.0f;
    }
  }
  template <class U>
  __device__ void store(const float (&from)[kStates], U* to) const {
    for (int k = 0; k < kStates; ++k) {
      if (k < count) to[k] = cuda::from_float<U>(from[k]);
    }
  }
  // A log2(e): decays are powers of two.
  __device__ void load_rates(const Inputs<T>& in, float (&rate)[kStates]) const {
    load(in.A + at(in, 0), rate);
    for (float& r : rate) r *= std::numbers::log2e_v<float>;
  }
};

/// Sum over the lanes of a channel, the same bits in each.
__device__ inline float channel_sum(float value, int lane_bits) {
  for (int distance = 1; distance < 1 << lane_bits; distance *= 2) {
    value += __shfl_xor_sync(cuda::kAllLanes, value, distance);
  }
  return value;
}

/// A chunk of tokens in shared memory. What does not exist, or is not wanted, is zero.
template <class T, int kTokens>
struct Tiles {
  float *B, *C;        // [tokens, lanes * 4]
  float *u, *dt, *dy;  // [tokens, channels]
  std::int32_t* row;   // [tokens], -1: not wanted

  static constexpr std::size_t bytes(int lane_bits, int extra_floats = 0) {
    const int channels = kThreads >> lane_bits, width = kStates << lane_bits;
    return sizeof(float) * (kTokens * (3 * channels + 2 * width + 1) + extra_floats);
  }
  __device__ Tiles(const Inputs<T>& in, float* memory) {
    const int channels = kThreads >> in.lane_bits, width = kStates << in.lane_bits;
    B = memory;
    C = B + kTokens * width;
    u = C + kTokens * width;
    dt = u + kTokens * channels;
    dy = dt + kTokens * channels;
    row = reinterpret_cast<std::int32_t*>(dy + kTokens * channels);
  }

  // Tokens begin .. begin + len - 1; kRows: C, the rows and, unless it is null, from_dy too. All
  // threads call it; it ends with a barrier.
  template <bool kRows>
  __device__ void load(const Inputs<T>& in, std::int64_t begin, int len, const T* from_dy) {
    const int channel_bits = 7 - in.lane_bits, width_bits = 2 + in.lane_bits;
    const std::int64_t first_channel = static_cast<std::int64_t>(blockIdx.y) << channel_bits;
    for (int i = static_cast<int>(threadIdx.x); i < len << channel_bits; i += kThreads) {
      const std::int64_t t = begin + (i >> channel_bits);
      const std::int64_t e = first_channel + (i & ((1 << channel_bits) - 1));
      const bool exists = e < in.dim;
      u[i] = exists ? cuda::to_float(in.u[t * in.dim + e]) : 0.0f;
      dt[i] = exists ? cuda::to_float(in.dt[t * in.dim + e]) : 0.0f;
      if (kRows && from_dy != nullptr) {
        const std::int64_t r = in.row_of == nullptr ? t : in.row_of[t];
        dy[i] = exists && r >= 0 ? cuda::to_float(from_dy[r * in.dim + e]) : 0.0f;
      } else if (kRows) {
        dy[i] = 0;
      }
    }
    for (int i = static_cast<int>(threadIdx.x); i < len << width_bits; i += kThreads) {
      const std::int64_t t = begin + (i >> width_bits);
      const std::int64_t n = in.first_state + (i & ((1 << width_bits) - 1));
      const bool exists = n < in.state;
      B[i] = exists ? cuda::to_float(in.B[t * in.state + n]) : 0.0f;
      if (kRows) {
        const std::int64_t r = in.row_of == nullptr ? t : in.row_of[t];
        C[i] = exists && r >= 0 ? cuda::to_float(in.C[r * in.state + n]) : 0.0f;
      }
    }
    if (kRows) {
      for (int i = static_cast<int>(threadIdx.x); i < len; i += kThreads) {
        const std::int64_t t = begin + i;
        row[i] = in.row_of == nullptr ? static_cast<std::int32_t>(t) : in.row_of[t];
      }
    }
    __syncthreads();
  }
};
static_assert(kThreads == 1 << 7 && kStates == 1 << 2);

/// carry [places, E, N]: what each piece adds on its own -> what arrives at it, from `start`
/// [S, E, N] or zero; steps [places, E], the sum of dt over the piece. Backward: from the last
/// piece to the first.
template <class T, bool kBackward>
__global__ void carry_kernel(cuda::Pieces pieces, const T* A, const float* steps, const T* start,
                             std::int64_t dim, std::int64_t state, float* carry) {
  const std::int64_t size = dim * state, count = pieces.sequences * size;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t s = i / size, at = i % size, e = at / state;
    const float rate = cuda::to_float(A[at]) * std::numbers::log2e_v<float>;
    float h = start == nullptr ? 0.0f : cuda::to_float(start[i]);
    const std::int64_t first = pieces.place(s), pieces_of_s = pieces.count(s);
    for (std::int64_t c = 0; c < (pieces_of_s > 0 ? pieces_of_s : 1); ++c) {
      const std::int64_t p = first + (kBackward ? pieces_of_s - 1 - c : c);
      if (pieces_of_s == 0) {
        carry[first * size + at] = h;
        break;
      }
      const float local = carry[p * size + at];
      carry[p * size + at] = h;
      h = exp2f(rate * steps[p * dim + e]) * h + local;
    }
  }
}

}  // namespace hax::scan_cuda
