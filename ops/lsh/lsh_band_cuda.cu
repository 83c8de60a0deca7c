// The band of LSH on CUDA: positions sorted by bin, then where each key expires.
#include "ops/lsh/lsh_band_sort.cuh"
#include "ops/lsh/lsh_kernels.h"

namespace hax {

using namespace lsh;

namespace {

constexpr unsigned kExpireThreads = 256;
// Sequences longer than this on average are sorted by several blocks each.
constexpr std::int64_t kLongSequence = 8192, kChunk = 4096;

// A block sorts one sequence.
__global__ void __launch_bounds__(kThreads)
    sort_kernel(const std::int64_t* bins, const std::int32_t* offsets, std::int32_t* order,
                std::int32_t* spare) {
  HAX_SHARED(place, int[kDigits]);
  const std::int64_t begin = offsets[blockIdx.x], length = offsets[blockIdx.x + 1] - begin;
  if (length == 0) return;  // the whole block
  const auto code = [bin = bins + begin](std::int64_t j) { return bin[j]; };
  const Span span = span_of(length, code, code);
  for (int number = 0; number < span.passes(); ++number) {
    const Pass pass(bins, order, spare, begin, span, number);
    count_digits(pass, 0, length, place);
    sum_before(place);
    scatter(pass, 0, length, place);
  }
}

// Long sequences: what the kernels over chunks work on.
struct Chunks {
  cuda::Pieces pieces;
  const std::int64_t* bins;
  std::int32_t *order, *spare;  // [T]
  std::int64_t* ends;           // [places, 2]: smallest and largest code of each chunk
  Span* spans;                  // [S]
  std::int32_t* starts;         // [places, kDigits]: where the chunk's digits go

  __device__ Pass pass(std::int64_t sequence, int number) const {
    return Pass(bins, order, spare, pieces.offsets[sequence], spans[sequence], number);
  }
};

__global__ void __launch_bounds__(kThreads) ends_kernel(Chunks chunks) {
  const cuda::Piece chunk = chunks.pieces.at(blockIdx.x);
  if (chunk.begin == chunk.end) return;  // the whole block
  const std::int64_t* bin = chunks.bins + chunk.begin;
  const auto code = [bin](std::int64_t i) { return bin[i]; };
  const Span span = span_of(chunk.end - chunk.begin, code, code);
  if (threadIdx.x != 0) return;
  std::int64_t* ends = chunks.ends + 2 * std::int64_t{blockIdx.x};
  ends[0] = span.low;
  ends[1] = static_cast<std::int64_t>(static_cast<std::uint64_t>(span.low) + span.width);
}

__global__ void __launch_bounds__(kThreads) spans_kernel(Chunks chunks) {
  const std::int64_t s = blockIdx.x, count = chunks.pieces.count(s);
  if (count == 0) return;
  const std::int64_t* ends = chunks.ends + 2 * chunks.pieces.place(s);
  const Span span = span_of(
      count, [ends](std::int64_t i) { return ends[2 * i]; },
      [ends](std::int64_t i) { return ends[2 * i + 1]; });
  if (threadIdx.x == 0) chunks.spans[s] = span;
}

__global__ void __launch_bounds__(kThreads) count_kernel(Chunks chunks, int number) {
  HAX_SHARED(place, int[kDigits]);
  const cuda::Piece chunk = chunks.pieces.at(blockIdx.x);
  if (chunk.begin == chunk.end || number >= chunks.spans[chunk.sequence].passes()) return;
  const std::int64_t begin = chunks.pieces.offsets[chunk.sequence];
  count_digits(chunks.pass(chunk.sequence, number), chunk.begin - begin, chunk.end - begin, place);
  if (threadIdx.x < kDigits) {
    chunks.starts[std::int64_t{blockIdx.x} * kDigits + threadIdx.x] = place[threadIdx.x];
  }
}

// starts: from how many to where, in order of (digit, chunk). A block a sequence, a thread a digit.
__global__ void __launch_bounds__(kDigits) starts_kernel(Chunks chunks, int number) {
  HAX_SHARED(place, int[kDigits]);
  const std::int64_t s = blockIdx.x, count = chunks.pieces.count(s);
  if (count == 0 || number >= chunks.spans[s].passes()) return;
  std::int32_t* starts = chunks.starts + chunks.pieces.place(s) * kDigits + threadIdx.x;
  int sum = 0;
  for (std::int64_t c = 0; c < count; ++c) sum += starts[c * kDigits];
  place[threadIdx.x] = sum;
  __syncthreads();
  sum_before(place);
  int next = place[threadIdx.x];
  for (std::int64_t c = 0; c < count; ++c) {
    const int here = starts[c * kDigits];
    starts[c * kDigits] = next;
    next += here;
  }
}

__global__ void __launch_bounds__(kThreads) scatter_kernel(Chunks chunks, int number) {
  HAX_SHARED(place, int[kDigits]);
  const cuda::Piece chunk = chunks.pieces.at(blockIdx.x);
  if (chunk.begin == chunk.end || number >= chunks.spans[chunk.sequence].passes()) return;
  if (threadIdx.x < kDigits) {
    place[threadIdx.x] = chunks.starts[std::int64_t{blockIdx.x} * kDigits + threadIdx.x];
  }
  __syncthreads();
  const std::int64_t begin = chunks.pieces.offsets[chunk.sequence];
  scatter(chunks.pass(chunk.sequence, number), chunk.begin - begin, chunk.end - begin, place);
}

// How many passes there are is known on the device alone; those that are not needed do nothing.
void sort_in_chunks(const std::int64_t* bins, const std::int32_t* offsets, std::int64_t sequences,
                    std::int64_t tokens, std::int32_t* order, std::int32_t* spare) {
  const std::int64_t places = cuda::piece_places(tokens, sequences, kChunk);
  Tensor ends = Tensor::empty({places, 2}, DType::int64, kCuda);
  Tensor spans = Tensor::empty({sequences, 2}, DType::int64, kCuda);
  Tensor starts = Tensor::empty({places, kDigits}, DType::int32, kCuda);
  static_assert(sizeof(Span) == 2 * sizeof(std::int64_t));
  const Chunks chunks{{offsets, sequences, kChunk},
                      bins,
                      order,
                      spare,
                      ends.data<std::int64_t>(),
                      reinterpret_cast<Span*>(spans.data<std::int64_t>()),
                      starts.data<std::int32_t>()};
  const cuda::LaunchShape of_chunks(cuda::blocks(places), kThreads);
  cuda::launch(ends_kernel, of_chunks, chunks);
  cuda::launch(spans_kernel, {cuda::blocks(sequences), kThreads}, chunks);
  for (int number = 0; number < kMostPasses; ++number) {
    cuda::launch(count_kernel, of_chunks, chunks, number);
    cuda::launch(starts_kernel, {cuda::blocks(sequences), kDigits}, chunks, number);
    cuda::launch(scatter_kernel, of_chunks, chunks, number);
  }
}

// A key expires with the `keys`-th later one of its bin, which is as many places on.
__global__ void expire_kernel(cuda::Pieces pieces, const std::int64_t* bins,
                              const std::int32_t* order, std::int64_t keys, std::int32_t* death,
                              std::int32_t* expire) {
  const cuda::Piece piece = pieces.at(blockIdx.x);
  const std::int64_t t = piece.begin + threadIdx.x;
  if (t >= piece.end) return;
  const std::int64_t begin = pieces.offsets[piece.sequence];
  const std::int64_t left = pieces.offsets[piece.sequence + 1] - t;
  death[t] = static_cast<std::int32_t>(t - begin);
  const std::int32_t j = order[t];
  std::int32_t until = KeySet::kForever;
  if (keys < left) {
    const std::int32_t later = order[t + keys];
    if (bins[begin + later] == bins[begin + j]) until = later;
  }
  expire[begin + j] = until;
}

}  // namespace

void band_of_bins(Cuda, const Tensor& key_bin, const Sequences& sequences, std::int64_t keys,
                  Tensor& death, Tensor& expire, Tensor& order) {
  const std::int64_t tokens = key_bin.numel(), count = sequences.count();
  const std::int32_t* offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  const auto* bins = key_bin.data<std::int64_t>();
  auto* sorted = order.data<std::int32_t>();
  Tensor spare = Tensor::empty({tokens}, DType::int32, kCuda);
  if (tokens > kLongSequence * count) {
    sort_in_chunks(bins, offsets, count, tokens, sorted, spare.data<std::int32_t>());
  } else {
    cuda::launch(sort_kernel, {cuda::blocks(count), kThreads}, bins, offsets, sorted,
                 spare.data<std::int32_t>());
  }
  const cuda::Pieces pieces{offsets, count, kExpireThreads};
  cuda::launch(expire_kernel,
               {cuda::blocks(cuda::piece_places(tokens, count, kExpireThreads)), kExpireThreads},
               pieces, bins, sorted, keys, death.data<std::int32_t>(), expire.data<std::int32_t>());
}

}  // namespace hax
