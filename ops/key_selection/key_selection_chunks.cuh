// How key_selection on CUDA finds where a key leaves the running top k, and the path for long
// sequences: in chunks, each beginning with the best keys before it. Page: key_selection.md
#pragma once

#include "engine/cuda/pieces.cuh"
#include "ops/key_set/key_set.h"

namespace hax::key_selection {

/// Threads of a block, and keys that it follows.
inline constexpr int kSlice = 128;
/// Scores in shared memory at once.
inline constexpr int kTile = 1024;
/// Sequences longer than this on average are cut into chunks.
inline constexpr std::int64_t kLongSequence = 4096;
inline constexpr std::int64_t kLeastChunk = 1024;

/// NaN, which has no place in an order, is taken for the smallest score: nothing here can throw.
template <class T>
__device__ float score_at(const T* scores, std::int64_t t) {
  const float score = cuda::to_float(scores[t]);
  return score == score ? score : __int_as_float(static_cast<int>(0xff800000u));
}

/// Tokens begin..end, of which the block's threads follow own_begin..own_end.
struct Range {
  std::int64_t begin, own_begin, own_end, end;
};

struct Life {
  bool admitted;
  int beaten_by;         ///< earlier ones that are at least as good, and later ones that are better
  std::int64_t dies_at;  ///< the token where it is evicted; -1: in `range` it is not
};

/// A key that enters at token `own` stays while fewer than `keys` others beat it: those before it
/// that are at least as good, `beaten` of them before `range`, and those after it that are better.
/// So it is counted, not kept in a queue: no step depends on what became of other keys. All threads
/// of the block call it, those without a key with active = false.
template <class T>
__device__ Life follow(const T* scores, const Range& range, std::int64_t own, float mine,
                       bool active, int keys, int beaten) {
  HAX_SHARED(tile, float4[kTile / 4]);
  float* const numbers = reinterpret_cast<float*>(tile);
  // The last group of four is filled up with NaN, which beats nothing.
  const auto load = [&](std::int64_t from, std::int64_t limit) {
    const int count = static_cast<int>(limit - from < kTile ? limit - from : kTile);
    const int groups = (count + 3) / 4;
    for (int i = static_cast<int>(threadIdx.x); i < 4 * groups; i += kSlice) {
      numbers[i] = i < count ? score_at(scores, from + i) : __int_as_float(0x7fc00000);
    }
    __syncthreads();
    return groups;
  };
  // Each is a barrier as well: nobody reads the last tile any more.
  const auto anyone = [](bool needs) { return __syncthreads_or(needs ? 1 : 0) != 0; };

  for (std::int64_t from = range.begin; from < range.own_begin; from += kTile) {
    if (!anyone(active && beaten < keys)) break;
    const int groups = load(from, range.own_begin);
    for (int g = 0; g < groups; ++g) {
      const float4 other = tile[g];
      beaten += static_cast<int>(other.x >= mine) + static_cast<int>(other.y >= mine) +
                static_cast<int>(other.z >= mine) + static_cast<int>(other.w >= mine);
    }
  }
  int better = 0;
  std::int64_t lived = 0;  // later tokens that did not end it
  const int place = static_cast<int>(own - range.own_begin);
  if (range.own_begin < range.own_end && anyone(active && beaten < keys)) {
    load(range.own_begin, range.own_end);
    for (int i = 0; active && i < place; ++i) beaten += static_cast<int>(numbers[i] >= mine);
    const int count = static_cast<int>(range.own_end - range.own_begin), left = keys - beaten;
    for (int i = place + 1; active && i < count && better < left; ++i) {
      better += static_cast<int>(numbers[i] > mine);
      lived += static_cast<int>(better < left);
    }
  }
  const int left = keys - beaten;
  for (std::int64_t from = range.own_end; from < range.end; from += kTile) {
    if (!anyone(active && better < left)) break;
    const int groups = load(from, range.end);
    for (int g = 0; g < groups && better < left; ++g) {
      const float4 other = tile[g];
      const int x = static_cast<int>(other.x > mine), y = static_cast<int>(other.y > mine),
                z = static_cast<int>(other.z > mine), w = static_cast<int>(other.w > mine);
      const int before = better;
      better += x + y + z + w;
      lived += 4;
      if (better < left) continue;
      // The first of the four that makes it `left`, and those after it, did end it.
      lived -= static_cast<int>(before + x >= left) + static_cast<int>(before + x + y >= left) +
               static_cast<int>(before + x + y + z >= left) + 1;
    }
  }
  const bool admitted = left > 0;
  const bool dies = admitted && better >= left;
  return {admitted, beaten + better, admitted ? (dies ? own + 1 + lived : -1) : own};
}

/// A kept key; lists of them are sorted by (score, highest first; token).
struct Kept {
  float score;
  std::int32_t token;
};

/// How many of a sorted list have a score of at least `score`, or, `above`, a higher one.
__device__ inline int count_from_top(const Kept* list, int size, float score, bool above) {
  int low = 0;
  for (int high = size; low < high;) {
    const int middle = (low + high) / 2;
    const float other = list[middle].score;
    if (above ? other > score : other >= score) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// How many keys are kept of the first `length` of a sequence.
__device__ inline int kept_of(std::int64_t length, int keys) {
  return static_cast<int>(length < keys ? length : keys);
}

/// best [places, keys]: the best of each chunk by itself, sorted. death: never, for all.
template <class T>
__global__ void __launch_bounds__(kSlice)
    best_kernel(cuda::Pieces chunks, const T* scores, int keys, Kept* best, std::int32_t* death) {
  const cuda::Piece chunk = chunks.at(blockIdx.x);
  const std::int64_t first = chunk.begin + std::int64_t{blockIdx.y} * kSlice;
  if (first >= chunk.end) return;  // the whole block
  const std::int64_t last = first + kSlice < chunk.end ? first + kSlice : chunk.end;
  const std::int64_t own = first + threadIdx.x;
  const bool active = own < last;
  const float mine = active ? score_at(scores, own) : 0.0f;
  // Nobody dies of all others: their number is the place in the list.
  const Life life =
      follow(scores, {chunk.begin, first, last, chunk.end}, own, mine, active, 0x7fffffff, 0);
  if (!active) return;
  death[own] = KeySet::kForever;
  if (life.beaten_by < keys) {
    best[std::int64_t{blockIdx.x} * keys + life.beaten_by] = {mine, static_cast<std::int32_t>(own)};
  }
}

/// kept [places, keys]: the best of all that is before each chunk in its sequence.
/// Deaths among the keys of a chunk (the first `slices` rows of the grid), and those that befall in
/// it the keys kept from before. Each key dies in one chunk at most, so each death has one writer.
template <class T>
__global__ void __launch_bounds__(kSlice)
    deaths_kernel(cuda::Pieces chunks, const T* scores, int keys, int slices, const Kept* kept,
                  std::int32_t* death) {
  const cuda::Piece chunk = chunks.at(blockIdx.x);
  if (chunk.begin == chunk.end) return;  // the whole block
  const std::int64_t begin = chunks.offsets[chunk.sequence];
  const Kept* list = kept + std::int64_t{blockIdx.x} * keys;
  const int size = kept_of(chunk.begin - begin, keys), row = static_cast<int>(blockIdx.y);
  if (row < slices) {
    const std::int64_t first = chunk.begin + std::int64_t{row} * kSlice;
    if (first >= chunk.end) return;
    const std::int64_t last = first + kSlice < chunk.end ? first + kSlice : chunk.end;
    const std::int64_t own = first + threadIdx.x;
    const bool active = own < last;
    const float mine = active ? score_at(scores, own) : 0.0f;
    const int beaten = count_from_top(list, size, mine, false);
    const Life life =
        follow(scores, {chunk.begin, first, last, chunk.end}, own, mine, active, keys, beaten);
    if (active && life.dies_at >= 0) death[own] = static_cast<std::int32_t>(life.dies_at - begin);
    return;
  }
  const int place = (row - slices) * kSlice + static_cast<int>(threadIdx.x);
  if (place - static_cast<int>(threadIdx.x) >= size) return;
  const bool active = place < size;
  const Kept mine = active ? list[place] : Kept{};
  const Life life = follow(scores, {chunk.begin, chunk.begin, chunk.begin, chunk.end},
                           chunk.begin - 1, mine.score, active, keys, place);
  if (active && life.dies_at >= 0) {
    death[mine.token] = static_cast<std::int32_t>(life.dies_at - begin);
  }
}

}  // namespace hax::key_selection
