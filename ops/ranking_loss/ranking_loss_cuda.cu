#include <numbers>

#include "engine/cuda/kernel.cuh"
#include "ops/ranking_loss/ranking_loss_kernels.h"
#include "ops/vector_math.h"

namespace hax {
namespace {

using cuda::from_float;
using cuda::to_float;

constexpr unsigned kThreads = 128;

// A block takes a candidate, a thread every kThreads-th query that sees it.
template <class T>
__global__ void target_kernel(const T* Q, const T* K, const std::int32_t* candidates,
                              const std::int32_t* groups, const std::int32_t* offsets,
                              const std::int32_t* padded_lengths, std::int64_t sequences,
                              std::int64_t dim, T* target) {
  const std::int64_t c = blockIdx.x;
  std::int64_t low = 0, high = sequences;  // the first group that ends after c
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (groups[middle + 1] > c) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  if (low == sequences) return;  // a place that no group needs
  const std::int64_t begin = offsets[low], length = offsets[low + 1] - begin;
  const std::int64_t padded = padded_lengths[low], j = candidates[c];
  if (j < 0 || j >= padded) {
    if (threadIdx.x == 0) target[c] = from_float<T>(__int_as_float(0x7fc00000));
    return;
  }
  const T* key = K + (begin + j) * dim;
  double sum = 0;
  for (std::int64_t i = j + threadIdx.x; i < length; i += kThreads) {
    const T* query = Q + (begin + i) * dim;
    float dot = 0;
    for (std::int64_t n = 0; n < dim; ++n) dot += to_float(query[n]) * to_float(key[n]);
    sum += static_cast<double>(fast_sigmoid(dot));
  }
  sum = cuda::block_sum(sum);
  // Padded queries are zero vectors: sigma(0) each.
  const std::int64_t pads = padded - (j > length ? j : length);
  if (threadIdx.x == 0) {
    target[c] = from_float<T>(static_cast<float>(sum + 0.5 * static_cast<double>(pads)));
  }
}

// A block takes a group, a thread a candidate of it against all others. losses [S]: of each group.
template <class T>
__global__ void loss_kernel(const T* score, const T* target, const std::int32_t* groups,
                            double divisor, double* losses, T* slope) {
  const std::int64_t begin = groups[blockIdx.x], count = groups[blockIdx.x + 1] - begin;
  const double size = static_cast<double>(count), pairs = size * size;
  double half = 0;  // over a < b; the pair (b, a) has the same loss
  for (std::int64_t a = threadIdx.x; a < count; a += kThreads) {
    const float mine = to_float(score[begin + a]), aim = to_float(target[begin + a]);
    double slope_a = 0;
    for (std::int64_t b = 0; b < count; ++b) {
      if (b == a) continue;
      const float x = mine - to_float(score[begin + b]), other = to_float(target[begin + b]);
      const float win = aim > other ? 1.0f : aim < other ? 0.0f : 0.5f;
      // A target that is not a number makes a loss that is none.
      const float want = aim == aim && other == other ? win : aim + other;
      slope_a += static_cast<double>(fast_sigmoid(x) - want);
      if (b > a)
        half += static_cast<double>((x > 0 ? x : 0) - x * want + fast_log1p_exp_neg_abs(x));
    }
    slope[begin + a] = from_float<T>(static_cast<float>(slope_a * (2 / (pairs * divisor))));
  }
  half = cuda::block_sum(half);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = count == 0 ? 0 : (2 * half + size * std::numbers::ln2) / pairs;
  }
}

// One block: a thread adds every kThreads-th group in order, then the block its threads.
template <class T>
__global__ void sum_kernel(const double* losses, std::int64_t groups, double divisor, T* loss) {
  double sum = 0;
  for (std::int64_t s = threadIdx.x; s < groups; s += kThreads) sum += losses[s];
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) *loss = from_float<T>(static_cast<float>(sum / divisor));
}

template <class T>
__global__ void scale_kernel(const T* dloss, const T* slope, std::int64_t count, T* dscore) {
  const float factor = to_float(*dloss);
  for (std::int64_t c = cuda::global_thread(); c < count; c += cuda::global_threads()) {
    dscore[c] = from_float<T>(factor * to_float(slope[c]));
  }
}

}  // namespace

void ranking_target(Cuda, const Tensor& Q, const Tensor& K, const Tensor& candidates,
                    const Sequences& groups, const Sequences& sequences, Tensor& target) {
  cuda::visit_storage("ranking_target", Q.dtype(), [&]<class T>() {
    cuda::launch(target_kernel<T>, {cuda::blocks(candidates.numel()), kThreads}, Q.data<T>(),
                 K.data<T>(), candidates.data<std::int32_t>(),
                 groups.offsets_on(kCuda).data<std::int32_t>(),
                 sequences.offsets_on(kCuda).data<std::int32_t>(),
                 sequences.padded_on(kCuda).data<std::int32_t>(), sequences.count(), Q.size(1),
                 target.data<T>());
  });
}

void ranking_loss_forward(Cuda, const Tensor& score, const Tensor& target, const Sequences& groups,
                          double divisor, Tensor& loss, Tensor& slope) {
  Tensor losses = Tensor::empty({groups.count()}, DType::float64, kCuda);
  cuda::visit_storage("ranking_loss", score.dtype(), [&]<class T>() {
    cuda::launch(loss_kernel<T>, {cuda::blocks(groups.count()), kThreads}, score.data<T>(),
                 target.data<T>(), groups.offsets_on(kCuda).data<std::int32_t>(), divisor,
                 losses.data<double>(), slope.data<T>());
    cuda::launch(sum_kernel<T>, {1u, kThreads}, losses.data<double>(), groups.count(), divisor,
                 loss.data<T>());
  });
}

void ranking_loss_backward(Cuda, const Tensor& dloss, const Tensor& slope, Tensor& dscore) {
  cuda::visit_storage("ranking_loss", slope.dtype(), [&]<class T>() {
    cuda::launch(scale_kernel<T>, {cuda::blocks_for(slope.numel(), kThreads), kThreads},
                 dloss.data<T>(), slope.data<T>(), slope.numel(), dscore.data<T>());
  });
}

}  // namespace hax
