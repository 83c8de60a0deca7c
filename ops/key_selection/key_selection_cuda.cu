#include "ops/key_selection/key_selection_chunks.cuh"
#include "ops/key_selection/key_selection_kernels.h"

namespace hax {
namespace {

using namespace key_selection;

// kept [places, keys]: the best of all that is before each chunk in its sequence, by merging the
// chunks' lists one after the other. A block a sequence. near: there is shared memory for three
// lists, and they are read there.
__global__ void merge_kernel(cuda::Pieces chunks, int keys, const Kept* best, Kept* kept,
                             bool near) {
  Kept* lists = near ? cuda::dynamic_shared<Kept>() : nullptr;
  const std::int64_t s = blockIdx.x, place = chunks.place(s), count = chunks.count(s);
  for (std::int64_t c = 0; c + 1 < count; ++c) {
    const Kept *old = kept + (place + c) * keys, *fresh = best + (place + c) * keys;
    Kept* far = kept + (place + c + 1) * keys;
    Kept* merged = far;
    const int olds = kept_of(c * chunks.length, keys), news = kept_of(chunks.length, keys);
    if (near) {
      Kept* here = lists + 2 * keys;
      for (int i = static_cast<int>(threadIdx.x); i < news; i += kSlice) here[i] = fresh[i];
      fresh = here;
      old = lists + (c % 2) * keys;
      merged = lists + (c + 1) % 2 * keys;
      __syncthreads();
    }
    const auto put = [&](int at, const Kept& key) {
      if (at >= keys) return;
      merged[at] = key;
      if (near) far[at] = key;
    };
    // Of equal scores the older comes first.
    for (int i = static_cast<int>(threadIdx.x); i < olds; i += kSlice) {
      put(i + count_from_top(fresh, news, old[i].score, true), old[i]);
    }
    for (int i = static_cast<int>(threadIdx.x); i < news; i += kSlice) {
      put(i + count_from_top(old, olds, fresh[i].score, false), fresh[i]);
    }
    __syncthreads();
  }
}

// A block follows one slice of a sequence's keys through the whole sequence.
template <class T>
__global__ void __launch_bounds__(kSlice)
    whole_kernel(cuda::Pieces slices, const T* scores, int keys, std::int32_t* death) {
  const cuda::Piece slice = slices.at(blockIdx.x);
  if (slice.begin == slice.end) return;  // the whole block
  const std::int64_t begin = slices.offsets[slice.sequence],
                     end = slices.offsets[slice.sequence + 1];
  const std::int64_t own = slice.begin + threadIdx.x;
  const bool active = own < slice.end;
  const float mine = active ? score_at(scores, own) : 0.0f;
  const Life life =
      follow(scores, {begin, slice.begin, slice.end, end}, own, mine, active, keys, 0);
  if (!active) return;
  death[own] =
      life.dies_at < 0 ? KeySet::kForever : static_cast<std::int32_t>(life.dies_at - begin);
}

template <class T>
void in_chunks(const T* scores, const std::int32_t* offsets, std::int64_t sequences,
               std::int64_t tokens, int keys, std::int32_t* death) {
  const std::int64_t least = cuda::ceil_div(keys, kSlice) * kSlice;
  const cuda::Pieces chunks{offsets, sequences, least > kLeastChunk ? least : kLeastChunk};
  const std::int64_t places = cuda::piece_places(tokens, sequences, chunks.length);
  const Shape shape{places, keys, static_cast<std::int64_t>(sizeof(Kept))};
  Tensor best = Tensor::empty(shape, DType::uint8, kCuda);
  Tensor kept = Tensor::empty(shape, DType::uint8, kCuda);
  auto* best_lists = reinterpret_cast<Kept*>(best.data<std::uint8_t>());
  auto* kept_lists = reinterpret_cast<Kept*>(kept.data<std::uint8_t>());

  const int slices = static_cast<int>(chunks.length / kSlice);
  const int kept_slices = static_cast<int>(cuda::ceil_div(keys, kSlice));
  cuda::launch(best_kernel<T>,
               {dim3(cuda::blocks(places), static_cast<unsigned>(slices)), dim3(kSlice)}, chunks,
               scores, keys, best_lists, death);
  constexpr std::size_t kRoom = std::size_t{48} << 10;
  const std::size_t bytes = 3 * sizeof(Kept) * static_cast<std::size_t>(keys);
  cuda::launch(merge_kernel,
               {cuda::blocks(sequences), kSlice, bytes <= kRoom ? bytes : std::size_t{0}}, chunks,
               keys, best_lists, kept_lists, bytes <= kRoom);
  cuda::launch(
      deaths_kernel<T>,
      {dim3(cuda::blocks(places), static_cast<unsigned>(slices + kept_slices)), dim3(kSlice)},
      chunks, scores, keys, slices, kept_lists, death);
}

}  // namespace

void running_top_k(Cuda, const Tensor& score, const Sequences& sequences, std::int64_t keys,
                   Tensor& death) {
  const std::int64_t tokens = score.size(0), count = sequences.count();
  if (tokens == 0) return;
  const std::int32_t* offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  const int wanted = static_cast<int>(keys < tokens ? keys : tokens);  // more are none
  cuda::visit_storage("key_selection", score.dtype(), [&]<class T>() {
    if (tokens > kLongSequence * count) {
      in_chunks(score.data<T>(), offsets, count, tokens, wanted, death.data<std::int32_t>());
      return;
    }
    const cuda::Pieces slices{offsets, count, kSlice};
    cuda::launch(whole_kernel<T>, {cuda::blocks(cuda::piece_places(tokens, count, kSlice)), kSlice},
                 slices, score.data<T>(), wanted, death.data<std::int32_t>());
  });
}

}  // namespace hax
