// A pack cut into pieces along time, for kernels that work on several parts of a sequence at once.
// Which piece a block works on follows from the offsets on the device; how many there may be
// follows from the totals alone, so that a captured launch serves every pack of the same totals.
#pragma once

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {

/// Some tokens begin..end of a sequence, at most the length that it was cut by.
struct Piece {
  std::int64_t sequence, begin, end;
  std::int64_t index;  ///< pieces of this sequence before this one
  bool last;           ///< the last one that has tokens; the only one of an empty sequence
};

/// Sequence s owns the places begin(s) / length + s and following: one more than its whole pieces,
/// enough wherever it begins. A place that is not needed holds an empty piece.
struct Pieces {
  const std::int32_t* offsets;  ///< [sequences + 1], on the device
  std::int64_t sequences, length;

  __device__ std::int64_t place(std::int64_t s) const { return offsets[s] / length + s; }
  /// Pieces of sequence s that have tokens.
  __device__ std::int64_t count(std::int64_t s) const {
    return ceil_div(offsets[s + 1] - offsets[s], length);
  }
  __device__ Piece at(std::int64_t place_wanted) const {
    std::int64_t low = 0, high = sequences - 1;  // the last sequence that begins at or before it
    while (low < high) {
      const std::int64_t middle = (low + high + 1) / 2;
      if (place(middle) <= place_wanted) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    const std::int64_t index = place_wanted - place(low), end = offsets[low + 1];
    const std::int64_t from = offsets[low] + index * length, pieces = count(low);
    const std::int64_t begin = from < end ? from : end;
    return {low, begin, begin + length < end ? begin + length : end, index,
            index == (pieces > 0 ? pieces - 1 : 0)};
  }
};

/// Places of the pieces of any pack of `tokens` in `sequences`.
inline std::int64_t piece_places(std::int64_t tokens, std::int64_t sequences, std::int64_t length) {
  return tokens / length + sequences;
}

namespace detail {

// A template, so that every source that includes this may define it.
template <class Index>
__global__ void row_of_token_kernel(const Index* rows, std::int64_t wanted, std::int64_t tokens,
                                    Index* row_of) {
  for (std::int64_t t = global_thread(); t < tokens; t += global_threads()) {
    std::int64_t low = 0, high = wanted;  // the first row at or after t
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (rows[middle] < t) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    row_of[t] = low < wanted && rows[low] == t ? static_cast<Index>(low) : Index{-1};
  }
}

}  // namespace detail

/// rows int32 [R], increasing positions -> int32 [tokens]: the row of each token, or -1.
inline Tensor row_of_token(const Tensor& rows, std::int64_t tokens) {
  Tensor row_of = Tensor::empty({tokens}, DType::int32, kCuda);
  launch(detail::row_of_token_kernel<std::int32_t>, {blocks_for(tokens, 256), 256},
         rows.data<std::int32_t>(), rows.size(0), tokens, row_of.data<std::int32_t>());
  return row_of;
}

}  // namespace hax::cuda
