// Work in pieces on the processor's threads.
//
// A batch is cut into shards of whole sequences and threads take those (train/step.h): a sequence
// stays in the cache of one core. Where there is but one long sequence, its ops cut themselves
// instead. Both go through parallel_for(), and a piece inside a piece runs where it is called.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/tensor.h"

namespace hax {

/// Items 0..count-1 in at most kMost contiguous pieces of at least `least` >= 0 items (one piece
/// when there are fewer). Where they are cut depends on the numbers given alone, never on threads:
/// sums over pieces, taken in order, are the same on every machine.
class Pieces {
 public:
  static constexpr std::int64_t kMost = 8;
  Pieces(std::int64_t count, std::int64_t least)
      : count_(count),
        number_(std::clamp<std::int64_t>(count / std::max<std::int64_t>(least, 1), 1, kMost)) {}

  std::int64_t number() const { return number_; }
  std::int64_t begin(std::int64_t piece) const { return count_ * piece / number_; }
  std::int64_t end(std::int64_t piece) const { return begin(piece + 1); }

 private:
  std::int64_t count_, number_;
};

/// The least number of rows [T, ...] worth a piece of their own. More than a sequence of the
/// paper's task has: those run whole.
inline constexpr std::int64_t kRowsWorthAPiece = 4096;

/// Calls body(0), ..., body(number - 1), on all threads there are; one after the other on this
/// thread when it is at work inside another parallel_for, or when number is 1. Denormals are
/// treated as in the calling thread. Rethrows the exception of the first piece that failed.
void parallel_for(std::int64_t number, const std::function<void(std::int64_t)>& body);

/// body(begin, end) for each of the pieces of `count` rows.
template <class F>
void parallel_rows(std::int64_t count, F&& body, std::int64_t least = kRowsWorthAPiece) {
  const Pieces pieces(count, least);
  if (pieces.number() == 1) return body(std::int64_t{0}, count);
  parallel_for(pieces.number(), [&](std::int64_t p) { body(pieces.begin(p), pieces.end(p)); });
}

/// sum [...] = the sum of what body(begin, end, part) adds to `part`, which is zero and shaped like
/// it, over the pieces of `count` rows. In order, so that no thread count changes a bit.
template <class F>
void sum_of_pieces(std::int64_t count, Tensor& sum, F&& body,
                   std::int64_t least = kRowsWorthAPiece) {
  fill(sum, 0);
  const Pieces pieces(count, least);
  if (pieces.number() == 1) return body(std::int64_t{0}, count, sum);
  std::vector<Tensor> parts(static_cast<std::size_t>(pieces.number()));
  parallel_for(pieces.number(), [&](std::int64_t p) {
    Tensor& part = parts[static_cast<std::size_t>(p)];
    part = Tensor::zeros(sum.shape(), sum.dtype());
    body(pieces.begin(p), pieces.end(p), part);
  });
  for (const Tensor& part : parts) accumulate(sum, part);
}

/// to[k] = the sum over `number` pieces of parts[piece * stride + k], in order; k < count.
template <class T>
void sum_parts(const T* parts, std::int64_t number, std::int64_t stride, std::int64_t count,
               T* to) {
  std::copy_n(parts, count, to);
  for (std::int64_t p = 1; p < number; ++p) {
    const T* from = parts + p * stride;
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) to[k] += from[k];
  }
}

}  // namespace hax
