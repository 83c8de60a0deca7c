// What the forward and the backward of selective_scan on CUDA share: how the work is cut, sums over
// lanes, and the pass that hands states from piece to piece. Page: selective_scan.md
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
  // a device idle (two blocks a multiprocessor do, and the longest sequence then decides), and as
  // long as about a thousand blocks allow.
  constexpr std::int64_t kEnough = 320, kWanted = 1024, kLeast = 128;
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
  bool by_length;  // every sequence is one piece, and few enough for block_place()
  bool in_quads;   // channels and states come in groups of 4 at multiples of 16 bytes

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
        lane_bits(plan.lane_bits),
        by_length(!plan.in_pieces && sequences.count() <= kThreads),
        in_quads(dim % 4 == 0 && state % 4 == 0 && cuda::starts_at_quad(u) &&
                 cuda::starts_at_quad(dt) && cuda::starts_at_quad(B) && cuda::starts_at_quad(C)) {}

  // Where the states before the chunk that begins at t are, in chunks: [.., E, N] from there.
  __device__ std::int64_t chunk_place(std::int64_t s, std::int64_t t) const {
    const std::int64_t begin = pieces.offsets[s];
    return begin / kScanChunk + s + (t - begin) / kScanChunk;
  }
};

/// The place of the piece that the block works on. Where all blocks are on the device at once, the
/// longest sequences would decide how long that takes: blocks that come late, which join an early
/// one on its multiprocessor, take the sequences in the opposite order of lengths.
template <class T>
__device__ std::int64_t block_place(const Inputs<T>& in) {
  if (!in.by_length) return blockIdx.x;
  HAX_SHARED(lengths, std::int32_t[kThreads]);
  HAX_SHARED(found, int);
  const int me = static_cast<int>(threadIdx.x), count = static_cast<int>(in.pieces.sequences);
  const int place = static_cast<int>(blockIdx.x);
  if (me < count) lengths[me] = in.pieces.offsets[me + 1] - in.pieces.offsets[me];
  __syncthreads();
  if (me < count) {
    int longer = 0;
    for (int s = 0; s < count; ++s) {
      longer += lengths[s] > lengths[me] || (lengths[s] == lengths[me] && s < me) ? 1 : 0;
    }
    if (longer == (2 * blockIdx.y < gridDim.y ? place : count - 1 - place)) found = me;
  }
  __syncthreads();
  return found;
}

/// Calls visit(token, row) for the block's share of the tokens that no sequence has; row -1: not
/// wanted.
template <class T, class F>
__device__ void for_each_left_over(const Inputs<T>& in, std::int64_t tokens, F visit) {
  for (std::int64_t t = in.pieces.offsets[in.pieces.sequences] + blockIdx.x; t < tokens;
       t += gridDim.x) {
    visit(t, in.row_of == nullptr ? t : std::int64_t{in.row_of[t]});
  }
}

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
  // The same for float32 tensors of the op's own.
  __device__ void load_own(const Inputs<T>& in, const float* from, float (&to)[kStates]) const {
    if (in.state % kStates != 0) return load(from, to);
    const float4 x = count > 0 ? *reinterpret_cast<const float4*>(from) : make_float4(0, 0, 0, 0);
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  }
  __device__ void store_own(const Inputs<T>& in, const float (&from)[kStates], float* to) const {
    if (in.state % kStates != 0) return store(from, to);
    if (count > 0) *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
  }
  // A log2(e): decays are powers of two.
  __device__ void load_rates(const Inputs<T>& in, float (&rate)[kStates]) const {
    load(in.A + at(in, 0), rate);
    for (float& r : rate) r *= std::numbers::log2e_v<float>;
  }
};

/// Of sums over the lanes of a channel, for 4 neighbouring tokens, the ones of tokens own(), own()
/// + lanes, ..: each lane goes on with its tokens, so that 4 tokens cost few shuffles. kLaneBits:
/// of Inputs, or -1 where it varies; with 2 every lane has one token.
template <int kLaneBits>
struct TokenSums {
  static_assert(kStates == 4);
  float x[4];

  __device__ void join(int lane, int lane_bits) {
    if constexpr (kLaneBits == 2) {
      const bool upper = (lane & 2) != 0, odd = (lane & 1) != 0;
      const float send0 = upper ? x[0] : x[2], send1 = upper ? x[1] : x[3];
      const float keep0 = upper ? x[2] : x[0], keep1 = upper ? x[3] : x[1];
      const float a = keep0 + __shfl_xor_sync(cuda::kAllLanes, send0, 2);
      const float b = keep1 + __shfl_xor_sync(cuda::kAllLanes, send1, 2);
      x[0] = (odd ? b : a) + __shfl_xor_sync(cuda::kAllLanes, odd ? a : b, 1);
    } else {
      for (float& sum : x) {
        for (int distance = 1; distance < 1 << lane_bits; distance *= 2) {
          sum += __shfl_xor_sync(cuda::kAllLanes, sum, distance);
        }
      }
    }
  }
  /// After join(): the sum of token j, one of the lane's.
  __device__ float of(int j) const {
    if constexpr (kLaneBits == 2) return x[0];
    return j == 0 ? x[0] : j == 1 ? x[1] : j == 2 ? x[2] : x[3];
  }
};

/// visit(integral_constant): the lane bits that kernels are made for, or -1.
template <class F>
void visit_lane_bits(int lane_bits, F visit) {
  if (lane_bits == 2) return visit(std::integral_constant<int, 2>{});
  visit(std::integral_constant<int, -1>{});
}

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
      h = cuda::fast_exp2(rate * steps[p * dim + e]) * h + local;
    }
  }
}

}  // namespace hax::scan_cuda
