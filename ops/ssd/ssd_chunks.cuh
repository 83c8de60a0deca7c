// What the kernels of ssd on CUDA share: how the work is cut, decays, and products of tiles in
// shared memory. Page: ssd.md
#pragma once

#include <numbers>

#include "engine/cuda/pieces.cuh"
#include "ops/ssd/ssd_kernels.h"

namespace hax::ssd_cuda {

/// A chunk has 64 tokens; a block works on one chunk and at most 8 heads of one group: a set.
inline constexpr int kChunk = static_cast<int>(kSsdCudaChunk), kThreads = 128, kHeads = 8;
/// A product has 64 rows and 16 * kColumns columns: 8 thread rows and 16 thread columns, a thread
/// has 8 neighbouring rows and every 16th column. Depth is staged 32 at a time.
inline constexpr int kRows = 8, kDepth = 32, kStride = kChunk + 4;

template <class T>
struct Inputs {
  cuda::Pieces pieces;
  const T *x, *dt, *A, *B, *C, *D;
  const std::int32_t* row_of;  // [T], null: row t
  std::int64_t heads, groups, head_dim, state;
  std::int64_t set_heads, sets;  // of a set, in a group

  // set_heads_: 1 to kHeads.
  Inputs(const SsdInputs& in, const Sequences& sequences, const SsdOptions& options,
         const Tensor& row_at, std::int64_t set_heads_)
      : pieces{sequences.offsets_on(kCuda).template data<std::int32_t>(), sequences.count(),
               kChunk},
        x(in.x.data<T>()),
        dt(in.dt.data<T>()),
        A(in.A.data<T>()),
        B(in.B.data<T>()),
        C(in.C.data<T>()),
        D(in.D.data<T>()),
        row_of(row_at.defined() ? row_at.data<std::int32_t>() : nullptr),
        heads(options.heads),
        groups(options.groups),
        head_dim(in.x.size(1) / options.heads),
        state(in.B.size(1) / options.groups),
        set_heads(set_heads_),
        sets(cuda::ceil_div(options.heads / options.groups, set_heads_)) {}

  __host__ __device__ std::int64_t channels() const { return heads * head_dim; }
  __host__ __device__ std::int64_t projected() const { return groups * state; }
  dim3 grid(std::int64_t places) const {
    return dim3(cuda::blocks(places), cuda::blocks(groups * sets));
  }
};

/// Heads of a block for kernels that go through them one after the other. Fewer heads are more
/// blocks, which a pack of the paper's size lacks, but every block makes C B^T again.
inline std::int64_t heads_in_turn(std::int64_t places, const SsdOptions& options) {
  constexpr std::int64_t kEnough = 1024;
  std::int64_t heads = kHeads;
  while (heads > 2 &&
         places * options.groups * cuda::ceil_div(options.heads / options.groups, heads) <
             kEnough) {
    heads /= 2;
  }
  return heads;
}
/// And for those whose products have the channels of all of a block's heads as rows, 64 at a time.
inline std::int64_t heads_as_rows(std::int64_t in_turn, std::int64_t head_dim) {
  std::int64_t heads = in_turn;
  while (heads < kHeads && heads * head_dim < kChunk) heads *= 2;
  return heads;
}

/// The chunk and the heads of this block.
template <class T>
struct Work {
  cuda::Piece piece;
  std::int64_t group, first_head;
  int len, heads;

  // `part`: the sets of all groups, counted through.
  __device__ Work(const Inputs<T>& in, std::int64_t part) : piece(in.pieces.at(blockIdx.x)) {
    const std::int64_t group_heads = in.heads / in.groups, set = part % in.sets;
    group = part / in.sets;
    first_head = group * group_heads + set * in.set_heads;
    const std::int64_t left = group_heads - set * in.set_heads;
    heads = static_cast<int>(left < in.set_heads ? left : in.set_heads);
    len = static_cast<int>(piece.end - piece.begin);
  }
};

/// In shared memory: for the block's heads the steps, and the running sums of dt A log2(e). Those
/// are in double precision, since differences of them are wanted to the precision of a float.
struct Decays {
  double since[kHeads][kChunk];
  float dt[kHeads][kChunk];
  std::int32_t row[kChunk];  // of y and C, -1: not wanted

  /// The decay from token j to token i >= j, from before the chunk to i, from j to the chunk's end.
  __device__ float between(int h, int j, int i) const {
    return exp2f(static_cast<float>(since[h][i] - since[h][j]));
  }
  __device__ float from_start(int h, int i) const { return exp2f(static_cast<float>(since[h][i])); }
  __device__ float to_end(int h, int j, int len) const { return between(h, j, len - 1); }
};

/// All threads call it; it ends with a barrier.
template <class T>
__device__ void load_decays(const Inputs<T>& in, const Work<T>& work, Decays& to) {
  const int lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  for (int h = static_cast<int>(threadIdx.x) / cuda::kWarp; h < work.heads;
       h += kThreads / cuda::kWarp) {
    const std::int64_t head = work.first_head + h;
    const double rate = static_cast<double>(cuda::to_float(in.A[head])) * std::numbers::log2e;
    double own[2];
    for (int k = 0; k < 2; ++k) {
      const int i = 2 * lane + k;
      const float dt =
          i < work.len ? cuda::to_float(in.dt[(work.piece.begin + i) * in.heads + head]) : 0.0f;
      to.dt[h][i] = dt;
      own[k] = dt * rate;
    }
    double sum = own[0] + own[1];  // over the lanes up to this one
    for (int distance = 1; distance < cuda::kWarp; distance *= 2) {
      const double before = __shfl_up_sync(cuda::kAllLanes, sum, distance);
      if (lane >= distance) sum += before;
    }
    to.since[h][2 * lane + 1] = sum;
    to.since[h][2 * lane] = sum - own[1];
  }
  for (int i = static_cast<int>(threadIdx.x); i < work.len; i += kThreads) {
    const std::int64_t t = work.piece.begin + i;
    to.row[i] = in.row_of == nullptr ? static_cast<std::int32_t>(t) : in.row_of[t];
  }
  __syncthreads();
}
static_assert(kChunk == 2 * cuda::kWarp);

/// The operands of a product, 32 of its depth at a time.
struct Stage {
  float a[kDepth][kStride], b[kDepth][kStride];
};

/// Row and column of this thread's sum (r, c) in a product.
__device__ inline int row_of_sum(int r) { return static_cast<int>(threadIdx.x) / 16 * kRows + r; }
__device__ inline int column_of_sum(int c) { return static_cast<int>(threadIdx.x) % 16 + 16 * c; }

/// sums += A B over `depth`; a(i, k) and b(k, j) are called once for all i < 64, k < depth and
/// j < 16 kColumns, and give zero for what does not exist. kRowsFast, kColumnsFast: whether i (or
/// j) runs through neighbouring numbers in memory, otherwise k does. All threads call it; what the
/// functions read must be complete; it begins with a barrier.
template <bool kRowsFast, bool kColumnsFast, int kColumns, class A, class B>
__device__ void add_product(float (&sums)[kRows][kColumns], std::int64_t depth, Stage& stage, A a,
                            B b) {
  constexpr int kWidth = 16 * kColumns;
  for (std::int64_t k0 = 0; k0 < depth; k0 += kDepth) {
    const int len = static_cast<int>(depth - k0 < kDepth ? depth - k0 : kDepth);
    __syncthreads();
    for (int item = static_cast<int>(threadIdx.x); item < kChunk * kDepth; item += kThreads) {
      const int i = kRowsFast ? item % kChunk : item / kDepth;
      const int k = kRowsFast ? item / kChunk : item % kDepth;
      if (k < len) stage.a[k][i] = a(i, k0 + k);
    }
    for (int item = static_cast<int>(threadIdx.x); item < kWidth * kDepth; item += kThreads) {
      const int j = kColumnsFast ? item % kWidth : item / kDepth;
      const int k = kColumnsFast ? item / kWidth : item % kDepth;
      if (k < len) stage.b[k][j] = b(k0 + k, j);
    }
    __syncthreads();
    HAX_UNROLL_BY(2)
    for (int k = 0; k < len; ++k) {
      const float4* rows = reinterpret_cast<const float4*>(&stage.a[k][row_of_sum(0)]);
      const float4 low = rows[0], high = rows[1];
      const float av[kRows] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      for (int c = 0; c < kColumns; ++c) {
        const float bv = stage.b[k][column_of_sum(c)];
        for (int r = 0; r < kRows; ++r) sums[r][c] += av[r] * bv;
      }
    }
  }
}

/// f.operator()<kColumns>(): as many columns as `width` needs, at most 64.
template <class F>
void visit_columns(std::int64_t width, F f) {
  if (width <= 16) return f.template operator()<1>();
  if (width <= 32) return f.template operator()<2>();
  f.template operator()<4>();
}

/// states [places, heads, P, N]: what each chunk adds on its own -> the state that arrives at it,
/// from `start` [S, heads, P, N] or zero, and what leaves at the other end -> `left`, which may be
/// null; totals [places, heads]: the decay over the whole chunk. Backward: from the last to the
/// first.
template <class T, bool kBackward>
__global__ void carry_kernel(cuda::Pieces pieces, const float* totals, const T* start,
                             std::int64_t heads, std::int64_t head_size, float* states, T* left) {
  const std::int64_t size = heads * head_size, count = pieces.sequences * size;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t s = i / size, at = i % size, h = at / head_size;
    const std::int64_t first = pieces.place(s), chunks = pieces.count(s);
    float value = start == nullptr ? 0.0f : cuda::to_float(start[i]);
    for (std::int64_t c = 0; c < chunks; ++c) {
      const std::int64_t p = first + (kBackward ? chunks - 1 - c : c);
      const float local = states[p * size + at];
      states[p * size + at] = value;
      value = totals[p * heads + h] * value + local;
    }
    if (left != nullptr) left[i] = cuda::from_float<T>(value);
  }
}

/// What a chunk adds to the state after it: sum over j of (decay to the end) dt_j x_j B_j; or,
/// backward, to the gradient of the state before it: sum over i of (decay from the start) dy_i C_i
/// -> states [places, heads, P, N], and totals unless null. A product whose rows are the channels
/// of the block's heads. dy may be null: zero.
template <class T, bool kBackward, int kColumns>
__global__ void chunk_state_kernel(Inputs<T> in, const T* dy, float* states, float* totals) {
  HAX_SHARED(decays, Decays);
  HAX_SHARED(stage, Stage);
  HAX_SHARED(weights, float[kHeads][kChunk]);
  const Work<T> work(in, blockIdx.y);
  if (work.len == 0) return;
  load_decays(in, work, decays);
  for (int item = static_cast<int>(threadIdx.x); item < work.heads * kChunk; item += kThreads) {
    const int h = item / kChunk, i = item % kChunk;
    if (i >= work.len) continue;
    weights[h][i] =
        kBackward ? decays.from_start(h, i) : decays.to_end(h, i, work.len) * decays.dt[h][i];
  }
  if (totals != nullptr && static_cast<int>(threadIdx.x) < work.heads) {
    const int h = static_cast<int>(threadIdx.x);
    totals[blockIdx.x * in.heads + work.first_head + h] = decays.from_start(h, work.len - 1);
  }
  __syncthreads();
  const std::int64_t channels = work.heads * in.head_dim, first = work.first_head * in.head_dim;
  for (std::int64_t p0 = 0; p0 < channels; p0 += kChunk) {
    for (std::int64_t n0 = 0; n0 < in.state; n0 += 16 * kColumns) {
      float sums[kRows][kColumns] = {};
      const auto row_of = [&](std::int64_t k) {
        return kBackward ? decays.row[k] : static_cast<std::int32_t>(work.piece.begin + k);
      };
      const auto left = [&](int i, std::int64_t k) {
        const std::int64_t p = p0 + i, row = row_of(k);
        if (p >= channels || row < 0 || (kBackward && dy == nullptr)) return 0.0f;
        const float value =
            cuda::to_float((kBackward ? dy : in.x)[row * in.channels() + first + p]);
        return value * weights[p / in.head_dim][k];
      };
      const auto right = [&](std::int64_t k, int j) {
        const std::int64_t n = n0 + j, row = row_of(k);
        if (n >= in.state || row < 0) return 0.0f;
        return cuda::to_float(
            (kBackward ? in.C : in.B)[row * in.projected() + work.group * in.state + n]);
      };
      add_product<true, true>(sums, work.len, stage, left, right);
      for (int r = 0; r < kRows; ++r) {
        const std::int64_t p = p0 + row_of_sum(r);
        for (int c = 0; c < kColumns; ++c) {
          const std::int64_t n = n0 + column_of_sum(c);
          if (p >= channels || n >= in.state) continue;
          states[(blockIdx.x * in.channels() + first + p) * in.state + n] = sums[r][c];
        }
      }
    }
  }
}

}  // namespace hax::ssd_cuda
