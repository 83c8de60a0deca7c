// The band of bins: positions sorted by (bin, position). Tiles of a sequence are sorted by
// counting, then merged pair by pair; a place in the sorted order is found by counting or bisection
// alone, so threads never wait for each other's results within a launch.
#include "engine/cuda/pieces.cuh"
#include "ops/lsh/lsh_kernels.h"

namespace hax {
namespace {

using cuda::Piece;
using cuda::Pieces;

// Positions that a block sorts; each of its threads compares two with all others.
constexpr int kTile = 512;
constexpr unsigned kThreads = 256;

__global__ void sort_tiles_kernel(const std::int64_t* bin, Pieces tiles, std::int32_t* sorted) {
  HAX_SHARED(bins, std::int64_t[kTile]);
  const Piece tile = tiles.at(blockIdx.x);
  const int count = static_cast<int>(tile.end - tile.begin);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(kThreads)) {
    bins[i] = bin[tile.begin + i];
  }
  __syncthreads();
  const auto first = static_cast<std::int32_t>(tile.index * kTile);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(kThreads)) {
    const std::int64_t mine = bins[i];
    int rank = 0;
    for (int k = 0; k < i; ++k) rank += bins[k] <= mine ? 1 : 0;
    for (int k = i + 1; k < count; ++k) rank += bins[k] < mine ? 1 : 0;
    sorted[tile.begin + rank] = first + i;
  }
}

__device__ std::int64_t sequence_of(const std::int32_t* offsets, std::int64_t sequences,
                                    std::int64_t token) {
  std::int64_t low = 0, high = sequences;  // the first that ends after the token
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (offsets[middle + 1] > token) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Runs of `run` sorted positions become runs of twice as many.
__global__ void merge_kernel(const std::int64_t* bin, const std::int32_t* offsets,
                             std::int64_t sequences, std::int64_t tokens, std::int64_t run,
                             const std::int32_t* from, std::int32_t* to) {
  for (std::int64_t t = cuda::global_thread(); t < tokens; t += cuda::global_threads()) {
    const std::int64_t s = sequence_of(offsets, sequences, t);
    if (s == sequences) continue;  // a token of no sequence
    const std::int64_t begin = offsets[s], length = offsets[s + 1] - begin, i = t - begin;
    const std::int64_t own = i / run, other = own ^ 1;
    const std::int32_t position = from[t];
    const std::int64_t mine = bin[begin + position];
    std::int64_t low = other * run < length ? other * run : length;
    std::int64_t high = low + run < length ? low + run : length;
    const std::int64_t start = low;
    while (low < high) {  // those of the other run that come before this one
      const std::int64_t middle = (low + high) / 2;
      const std::int32_t against = from[begin + middle];
      const std::int64_t theirs = bin[begin + against];
      if (theirs < mine || (theirs == mine && against < position)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    to[begin + own / 2 * 2 * run + (i - own * run) + (low - start)] = position;
  }
}

__global__ void expire_kernel(const std::int64_t* bin, const std::int32_t* offsets,
                              std::int64_t sequences, std::int64_t tokens, std::int64_t keys,
                              const std::int32_t* order, std::int32_t* death,
                              std::int32_t* expire) {
  for (std::int64_t t = cuda::global_thread(); t < tokens; t += cuda::global_threads()) {
    const std::int64_t s = sequence_of(offsets, sequences, t);
    if (s == sequences) continue;
    const std::int64_t begin = offsets[s], end = offsets[s + 1];
    const std::int32_t position = order[t];
    std::int32_t expires = KeySet::kForever;
    if (keys < end - t) {
      const std::int32_t later = order[t + keys];
      if (bin[begin + later] == bin[begin + position]) expires = later;
    }
    expire[begin + position] = expires;
    death[t] = static_cast<std::int32_t>(t - begin);
  }
}

}  // namespace

void band_of_bins(Cuda, const Tensor& key_bin, const Sequences& sequences, std::int64_t keys,
                  Tensor& death, Tensor& expire, Tensor& order) {
  const std::int64_t tokens = key_bin.numel(), count = sequences.count();
  const std::int64_t* bin = key_bin.data<std::int64_t>();
  const Tensor offsets = sequences.offsets_on(kCuda);
  const auto* begins = offsets.data<std::int32_t>();
  const std::int64_t longest = sequences.longest();
  int merges = 0;
  while ((std::int64_t{kTile} << merges) < longest) ++merges;
  Tensor other;
  if (merges > 0) other = Tensor::empty({tokens}, DType::int32, kCuda);
  // The last merge writes `order`.
  std::int32_t* from = merges % 2 == 0 ? order.data<std::int32_t>() : other.data<std::int32_t>();
  std::int32_t* to =
      merges % 2 == 0 && merges > 0 ? other.data<std::int32_t>() : order.data<std::int32_t>();
  cuda::launch(sort_tiles_kernel,
               {cuda::blocks(tokens > 0 ? cuda::piece_places(tokens, count, kTile) : 0), kThreads},
               bin, Pieces{begins, count, kTile}, from);
  const cuda::LaunchShape of_tokens(cuda::blocks_for(tokens, kThreads), kThreads);
  for (int m = 0; m < merges; ++m) {
    cuda::launch(merge_kernel, of_tokens, bin, begins, count, tokens, std::int64_t{kTile} << m,
                 from, to);
    std::int32_t* const sorted = to;
    to = from;
    from = sorted;
  }
  cuda::launch(expire_kernel, of_tokens, bin, begins, count, tokens, keys, from,
               death.data<std::int32_t>(), expire.data<std::int32_t>());
}

}  // namespace hax
