#include "engine/cuda/pieces.cuh"
#include "ops/key_set/key_set.h"
#include "ops/key_set/key_set_kernels.h"

namespace hax {
namespace {

// A block takes a piece of a sequence, which it finds in the offsets on the device.
constexpr unsigned kThreads = 256;

__global__ void interval_kernel(cuda::Pieces pieces, IntervalRule rule, std::int32_t* death) {
  const cuda::Piece piece = pieces.at(blockIdx.x);
  const std::int64_t t = piece.begin + threadIdx.x;
  if (t >= piece.end) return;
  const std::int64_t dies = rule.death_of(t - pieces.offsets[piece.sequence]);
  death[t] = static_cast<std::int32_t>(dies < KeySet::kForever ? dies : KeySet::kForever);
}

__global__ void unite_kernel(const std::int32_t* a, const std::int32_t* b, std::int64_t tokens,
                             std::int32_t* death) {
  for (std::int64_t t = cuda::global_thread(); t < tokens; t += cuda::global_threads()) {
    death[t] = a[t] > b[t] ? a[t] : b[t];
  }
}

}  // namespace

void interval_deaths(Cuda, const Sequences& sequences, const IntervalRule& rule, Tensor& death) {
  const cuda::Pieces pieces{sequences.offsets_on(kCuda).data<std::int32_t>(), sequences.count(),
                            kThreads};
  const std::int64_t places = cuda::piece_places(death.numel(), sequences.count(), kThreads);
  cuda::launch(interval_kernel, {cuda::blocks(places), kThreads}, pieces, rule,
               death.data<std::int32_t>());
}

void unite_deaths(Cuda, const Tensor& a, const Tensor& b, Tensor& death) {
  cuda::launch(unite_kernel, {cuda::blocks_for(death.numel(), kThreads), kThreads},
               a.data<std::int32_t>(), b.data<std::int32_t>(), death.numel(),
               death.data<std::int32_t>());
}

}  // namespace hax
