#include <numbers>

#include "engine/cuda/pieces.cuh"
#include "ops/ranking_loss/ranking_loss_kernels.h"

namespace hax {

using cuda::from_float;
using cuda::kWarp;
using cuda::to_float;

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kCandidates = 8;  // of a block, in registers: one query's products with all of them
constexpr int kDims = 16;       // columns of Q in shared memory at once

// What nothing can throw about, a candidate beyond its sequence, makes its target this.
__device__ float not_a_number() { return __int_as_float(0x7fc00000); }
__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }
__device__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

// A block takes up to 8 candidates of one sequence, a thread every 256th query. Which thread takes
// a query depends on the query alone, so equal candidates have equal targets to the bit.
template <class T>
__global__ void __launch_bounds__(kThreads)
    target_kernel(const T* Q, const T* K, std::int64_t dim, const std::int32_t* candidates,
                  cuda::Pieces groups, const std::int32_t* offsets, const std::int32_t* padded,
                  T* target) {
  HAX_SHARED(queries, float[kThreads][kDims + 1]);
  HAX_SHARED(keys, float4[kCandidates][kDims / 4]);
  HAX_SHARED(position, int[kCandidates]);
  HAX_SHARED(sums, double[kWarps][kCandidates]);
  const cuda::Piece piece = groups.at(blockIdx.x);
  const int count = static_cast<int>(piece.end - piece.begin);
  if (count == 0) return;  // the whole block
  const std::int64_t begin = offsets[piece.sequence], len = offsets[piece.sequence + 1] - begin;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kCandidates) {
    position[thread] = thread < count ? candidates[piece.begin + thread] : 0x7fffffff;
  }
  __syncthreads();
  int earliest = position[0];
  for (int c = 1; c < kCandidates; ++c) earliest = min(earliest, position[c]);
  earliest = max(earliest, 0);

  double sum[kCandidates] = {};
  for (std::int64_t first = earliest / kThreads * kThreads; first < len; first += kThreads) {
    float dots[kCandidates] = {};
    for (std::int64_t d = 0; d < dim; d += kDims) {
      __syncthreads();
      for (int i = thread; i < kThreads * kDims; i += kThreads) {
        const std::int64_t row = first + i / kDims, column = d + i % kDims;
        queries[i / kDims][i % kDims] =
            row < len && column < dim ? to_float(Q[(begin + row) * dim + column]) : 0.0f;
      }
      if (thread < kCandidates * kDims) {
        const std::int64_t row = position[thread / kDims], column = d + thread % kDims;
        reinterpret_cast<float*>(keys)[thread] = row >= 0 && row < len && column < dim
                                                     ? to_float(K[(begin + row) * dim + column])
                                                     : 0.0f;
      }
      __syncthreads();
      float query[kDims];
      for (int k = 0; k < kDims; ++k) query[k] = queries[thread][k];
      for (int c = 0; c < kCandidates; ++c) {
        for (int k = 0; k < kDims / 4; ++k) {
          const float4 key = keys[c][k];
          dots[c] += query[4 * k] * key.x + query[4 * k + 1] * key.y + query[4 * k + 2] * key.z +
                     query[4 * k + 3] * key.w;
        }
      }
    }
    const std::int64_t query = first + thread;
    for (int c = 0; c < kCandidates; ++c) {
      if (query < len && query >= position[c]) sum[c] += static_cast<double>(sigmoid(dots[c]));
    }
  }
  for (int c = 0; c < kCandidates; ++c) {
    const double share = cuda::warp_sum(sum[c]);
    if (lane() == 0) sums[warp()][c] = share;
  }
  __syncthreads();
  if (thread >= count) return;
  // Padded queries are zero vectors: sigma(0) each.
  const std::int64_t j = position[thread], limit = padded[piece.sequence];
  double total = 0.5 * static_cast<double>(limit - (j > len ? j : len));
  for (int w = 0; w < kWarps; ++w) total += sums[w][thread];
  const bool known = j >= 0 && j < limit;
  target[piece.begin + thread] = from_float<T>(known ? static_cast<float>(total) : not_a_number());
}

// A warp takes a candidate a, its lanes the others of its group. shares [C]: what a adds to the
// loss.
template <class T>
__global__ void loss_kernel(const T* score, const T* target, cuda::Pieces groups, double divisor,
                            double* shares, T* slope) {
  const cuda::Piece piece = groups.at(blockIdx.x);
  const std::int64_t a = piece.begin + warp();
  if (a >= piece.end) return;
  const std::int64_t begin = groups.offsets[piece.sequence],
                     end = groups.offsets[piece.sequence + 1];
  const float mine = to_float(score[a]), wanted = to_float(target[a]);
  double loss = 0, excess = 0;
  for (std::int64_t b = begin + lane(); b < end; b += kWarp) {
    if (b == a) continue;
    const float x = mine - to_float(score[b]), other = to_float(target[b]);
    const float lost = wanted < other ? 0.0f : not_a_number();
    const float want = wanted > other ? 1.0f : (wanted == other ? 0.5f : lost);
    if (b > a) loss += static_cast<double>(fmaxf(x, 0) - x * want + log1pf(expf(-fabsf(x))));
    excess += static_cast<double>(sigmoid(x) - want);
  }
  loss = cuda::warp_sum(loss);
  excess = cuda::warp_sum(excess);
  if (lane() != 0) return;
  const double size = static_cast<double>(end - begin), pairs = size * size;
  shares[a] = (2 * loss + std::numbers::ln2) / pairs;
  slope[a] = from_float<T>(static_cast<float>(2 * excess / (pairs * divisor)));
}

// One block. A thread adds every 256th share in order, then the block its threads.
template <class T>
__global__ void sum_kernel(const double* shares, std::int64_t count, double divisor, T* loss) {
  double sum = 0;
  for (std::int64_t c = threadIdx.x; c < count; c += kThreads) sum += shares[c];
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) *loss = from_float<T>(static_cast<float>(sum / divisor));
}

template <class T>
__global__ void backward_kernel(const T* dloss, const T* slope, std::int64_t count, T* dscore) {
  for (std::int64_t c = cuda::global_thread(); c < count; c += cuda::global_threads()) {
    dscore[c] = from_float<T>(to_float(*dloss) * to_float(slope[c]));
  }
}

cuda::Pieces pieces_of(const Sequences& groups, std::int64_t length) {
  return {groups.offsets_on(kCuda).data<std::int32_t>(), groups.count(), length};
}
unsigned places_of(const Sequences& groups, std::int64_t candidates, std::int64_t length) {
  return cuda::blocks(cuda::piece_places(candidates, groups.count(), length));
}

}  // namespace

void ranking_target(Cuda, const Tensor& Q, const Tensor& K, const Tensor& candidates,
                    const Sequences& groups, const Sequences& sequences, Tensor& target) {
  cuda::visit_storage("ranking_target", Q.dtype(), [&]<class T>() {
    cuda::launch(target_kernel<T>,
                 {places_of(groups, candidates.numel(), kCandidates), unsigned{kThreads}},
                 Q.data<T>(), K.data<T>(), Q.size(1), candidates.data<std::int32_t>(),
                 pieces_of(groups, kCandidates), sequences.offsets_on(kCuda).data<std::int32_t>(),
                 sequences.padded_on(kCuda).data<std::int32_t>(), target.data<T>());
  });
}

void ranking_loss_forward(Cuda, const Tensor& score, const Tensor& target, const Sequences& groups,
                          double divisor, Tensor& loss, Tensor& slope) {
  const std::int64_t count = score.numel();
  Tensor shares = Tensor::empty({count}, DType::float64, kCuda);
  cuda::visit_storage("ranking_loss", score.dtype(), [&]<class T>() {
    cuda::launch(loss_kernel<T>, {places_of(groups, count, kWarps), unsigned{kThreads}},
                 score.data<T>(), target.data<T>(), pieces_of(groups, kWarps), divisor,
                 shares.data<double>(), slope.data<T>());
    cuda::launch(sum_kernel<T>, {1u, unsigned{kThreads}}, shares.data<double>(), count, divisor,
                 loss.data<T>());
  });
}

void ranking_loss_backward(Cuda, const Tensor& dloss, const Tensor& slope, Tensor& dscore) {
  cuda::visit_storage("ranking_loss", slope.dtype(), [&]<class T>() {
    cuda::launch(backward_kernel<T>,
                 {cuda::blocks_for(slope.numel(), kThreads), unsigned{kThreads}}, dloss.data<T>(),
                 slope.data<T>(), slope.numel(), dscore.data<T>());
  });
}

}  // namespace hax
