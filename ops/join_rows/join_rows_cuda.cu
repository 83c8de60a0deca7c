#include "engine/cuda/kernel.cuh"
#include "ops/join_rows/join_rows_kernels.h"

namespace hax {
namespace {

constexpr unsigned kThreads = 256;

// Numbers move as words, whatever they are.
struct Packs {
  const std::int32_t *past, *present;   // offsets [sequences + 1], on the device
  std::int64_t sequences, rows, words;  // rows of the joined pack, words a row
};

// The row of a (or b, `later`) that row t of the joined pack is.
struct Source {
  std::int64_t row;
  bool later;
};
__device__ Source source_of(const Packs& packs, std::int64_t t) {
  std::int64_t low = 0, high = packs.sequences - 1;  // the last sequence that begins at or before t
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    const std::int64_t begin =
        static_cast<std::int64_t>(packs.past[middle]) + packs.present[middle];
    if (begin <= t) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const std::int64_t past = t - packs.present[low];  // as long as it belongs to the past
  if (past < packs.past[low + 1]) return {past, false};
  return {t - packs.past[low + 1], true};
}

template <class Word>
__global__ void join_kernel(Packs packs, const Word* a, const Word* b, Word* joined) {
  const std::int64_t count = packs.rows * packs.words;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t t = i / packs.words, word = i - t * packs.words;
    const Source from = source_of(packs, t);
    joined[i] = (from.later ? b : a)[from.row * packs.words + word];
  }
}

template <class Word>
__global__ void split_kernel(Packs packs, const Word* joined, Word* a, Word* b) {
  const std::int64_t count = packs.rows * packs.words;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t t = i / packs.words, word = i - t * packs.words;
    const Source to = source_of(packs, t);
    (to.later ? b : a)[to.row * packs.words + word] = joined[i];
  }
}

// Calls f.operator()<Word>() for the widest word that rows are made of and tables begin at.
template <class F>
void visit_words(std::int64_t row_bytes, const void* a, const void* b, const void* joined, F&& f) {
  std::uintptr_t bits = static_cast<std::uintptr_t>(row_bytes);
  for (const void* table : {a, b, joined}) bits |= reinterpret_cast<std::uintptr_t>(table);
  if (bits % 8 == 0) return f.template operator()<std::uint64_t>();
  if (bits % 4 == 0) return f.template operator()<std::uint32_t>();
  if (bits % 2 == 0) return f.template operator()<std::uint16_t>();
  f.template operator()<std::uint8_t>();
}

std::int64_t row_bytes(const Tensor& joined) {
  return joined.size(0) == 0 ? 0 : joined.bytes() / joined.size(0);
}

}  // namespace

void join_row_tables(Cuda, const Tensor& a, const Sequences& past, const Tensor& b,
                     const Sequences& present, Tensor& joined) {
  if (joined.numel() == 0) return;
  const Tensor first = past.offsets_on(kCuda), second = present.offsets_on(kCuda);
  const std::int64_t bytes = row_bytes(joined);
  visit_words(bytes, a.raw(), b.raw(), joined.raw(), [&]<class Word>() {
    const Packs packs{first.data<std::int32_t>(), second.data<std::int32_t>(), past.count(),
                      joined.size(0), bytes / static_cast<std::int64_t>(sizeof(Word))};
    cuda::launch(join_kernel<Word>,
                 {cuda::blocks_for(packs.rows * packs.words, kThreads), kThreads}, packs,
                 static_cast<const Word*>(a.raw()), static_cast<const Word*>(b.raw()),
                 static_cast<Word*>(joined.raw()));
  });
}

void split_row_tables(Cuda, const Tensor& joined, const Sequences& past, const Sequences& present,
                      Tensor& a, Tensor& b) {
  if (joined.numel() == 0) return;
  const Tensor first = past.offsets_on(kCuda), second = present.offsets_on(kCuda);
  const std::int64_t bytes = row_bytes(joined);
  visit_words(bytes, a.raw(), b.raw(), joined.raw(), [&]<class Word>() {
    const Packs packs{first.data<std::int32_t>(), second.data<std::int32_t>(), past.count(),
                      joined.size(0), bytes / static_cast<std::int64_t>(sizeof(Word))};
    cuda::launch(split_kernel<Word>,
                 {cuda::blocks_for(packs.rows * packs.words, kThreads), kThreads}, packs,
                 static_cast<const Word*>(joined.raw()), static_cast<Word*>(a.raw()),
                 static_cast<Word*>(b.raw()));
  });
}

}  // namespace hax
