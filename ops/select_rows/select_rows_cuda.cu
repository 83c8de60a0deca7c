#include "engine/cuda/kernel.cuh"
#include "ops/select_rows/select_rows_kernels.h"

namespace hax {

namespace {

constexpr unsigned kThreads = 256;

// T: an integer as wide as an element.
template <class T>
__global__ void select_kernel(const T* x, const std::int32_t* rows, std::int64_t count,
                              std::int64_t width, T* y) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t r = i / width;
    y[i] = x[rows[r] * width + (i - r * width)];
  }
}

template <class T>
void select(const Tensor& x, const Tensor& rows, Tensor& y) {
  const std::int64_t count = y.numel(), width = rows.numel() == 0 ? 1 : count / rows.numel();
  cuda::launch(select_kernel<T>, {cuda::blocks_for(count, kThreads), kThreads},
               static_cast<const T*>(x.raw()), rows.data<std::int32_t>(), count, width,
               static_cast<T*>(y.raw()));
}

// A thread takes one number. The sequence of candidate c is the last one that does not begin after
// it, found by halving the offsets.
template <class T>
__global__ void candidates_kernel(const T* features, const std::int32_t* positions,
                                  const std::int32_t* group_offsets, const std::int32_t* offsets,
                                  std::int64_t sequences, std::int64_t count, std::int64_t width,
                                  T* y) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t c = i / width, column = i - c * width;
    std::int64_t s = 0;
    for (std::int64_t end = sequences; end - s > 1;) {
      const std::int64_t middle = (s + end) / 2;
      if (group_offsets[middle] <= c) {
        s = middle;
      } else {
        end = middle;
      }
    }
    const std::int32_t begin = offsets[s], length = offsets[s + 1] - begin;
    const bool padding = positions[c] >= length;
    const std::int64_t row = begin + (padding ? length - 1 : positions[c]);
    y[i] = padding && column < width / 2 ? cuda::from_float<T>(0) : features[row * width + column];
  }
}

}  // namespace

void select_rows(Cuda, const Tensor& x, const Tensor& rows, Tensor& y) {
  switch (size_of(x.dtype())) {
    case 1:
      return select<std::uint8_t>(x, rows, y);
    case 2:
      return select<std::uint16_t>(x, rows, y);
    case 4:
      return select<std::uint32_t>(x, rows, y);
    default:
      return select<std::uint64_t>(x, rows, y);
  }
}

void candidate_features(Cuda, const Tensor& features, const Tensor& positions,
                        const Sequences& groups, const Sequences& sequences, Tensor& y) {
  cuda::visit_storage("candidate_features", features.dtype(), [&]<class T>() {
    cuda::launch(candidates_kernel<T>, {cuda::blocks_for(y.numel(), kThreads), kThreads},
                 features.data<T>(), positions.data<std::int32_t>(),
                 groups.offsets_on(kCuda).data<std::int32_t>(),
                 sequences.offsets_on(kCuda).data<std::int32_t>(), sequences.count(), y.numel(),
                 features.size(1), y.data<T>());
  });
}

}  // namespace hax
