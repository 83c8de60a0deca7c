// A block runs through a sequence, a chunk of new keys after the other. It keeps the best keys so
// far, best first. Who is among the best is a question of counting: a key is dead once `keys`
// others beat it, with a higher score or an equal one that is older. A thread counts for its key
// along the chunk, so all keys of a chunk are decided at once.
#include "engine/cuda/kernel.cuh"
#include "ops/key_selection/key_selection_kernels.h"

namespace hax {
namespace {

constexpr unsigned kThreads = 256;
constexpr std::int64_t kChunk = 256;
// Best keys that fit into a block's memory, twice: before a chunk and after it.
constexpr std::int64_t kMostShared = 2560;

struct Best {
  float score;
  std::int32_t position;
};

// NaN ranks below all numbers: nothing can throw here, and no place may be given twice.
template <class T>
__device__ float rankable(T score) {
  const float value = cuda::to_float(score);
  return value == value ? value : -INFINITY;
}

// Two lists of `keys` in shared memory, or where `room` [S, 2, keys] is.
template <class T>
__global__ void top_k_kernel(const T* score, const std::int32_t* offsets, std::int64_t keys,
                             Best* room, std::int32_t* death) {
  HAX_SHARED(chunk, float[kChunk]);
  const std::int64_t s = blockIdx.x, begin = offsets[s], length = offsets[s + 1] - begin;
  Best* best = room ? room + s * 2 * keys : cuda::dynamic_shared<Best>();
  Best* next = best + keys;
  std::int64_t kept = 0;
  for (std::int64_t first = 0; first < length; first += kChunk) {
    const std::int64_t count = length - first < kChunk ? length - first : kChunk;
    for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      chunk[i] = rankable(score[begin + first + i]);
    }
    __syncthreads();
    for (std::int64_t e = threadIdx.x; e < kept + count; e += blockDim.x) {
      const std::int64_t own = e - kept;  // in the chunk; negative: one of the best so far
      Best key{};
      std::int64_t beaten_by = 0;
      if (own < 0) {
        key = best[e];
        beaten_by = e;
      } else {
        key = {chunk[own], static_cast<std::int32_t>(first + own)};
        std::int64_t low = 0, high = kept;  // the first of the best that does not beat it
        while (low < high) {
          const std::int64_t middle = (low + high) / 2;
          if (best[middle].score >= key.score) {
            low = middle + 1;
          } else {
            high = middle;
          }
        }
        beaten_by = low;
        for (std::int64_t i = 0; i < own; ++i) beaten_by += chunk[i] >= key.score ? 1 : 0;
      }
      std::int32_t dies = KeySet::kForever;
      if (beaten_by >= keys) dies = key.position;
      for (std::int64_t i = own < 0 ? 0 : own + 1; i < count && beaten_by < keys; ++i) {
        if (chunk[i] <= key.score) continue;
        if (++beaten_by == keys) dies = static_cast<std::int32_t>(first + i);
      }
      death[begin + key.position] = dies;
      if (beaten_by < keys) next[beaten_by] = key;
    }
    __syncthreads();
    kept = kept + count < keys ? kept + count : keys;
    Best* const old = best;
    best = next;
    next = old;
  }
}

}  // namespace

void running_top_k(Cuda, const Tensor& score, const Sequences& sequences, std::int64_t keys,
                   Tensor& death) {
  // No list is longer than its sequence.
  const std::int64_t longest = sequences.longest(), most = keys < longest ? keys : longest;
  Tensor room;
  std::size_t shared = static_cast<std::size_t>(2 * most) * sizeof(Best);
  if (most > kMostShared) {
    room = Tensor::empty({sequences.count(), 2 * most, 2}, DType::float32, kCuda);
    shared = 0;
  }
  cuda::visit_storage("key_selection", score.dtype(), [&]<class T>() {
    cuda::launch(top_k_kernel<T>, {cuda::blocks(sequences.count()), kThreads, shared},
                 score.data<T>(), sequences.offsets_on(kCuda).data<std::int32_t>(), most,
                 room.defined() ? reinterpret_cast<Best*>(room.raw()) : nullptr,
                 death.data<std::int32_t>());
  });
}

}  // namespace hax
