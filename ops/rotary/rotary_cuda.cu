#include <cmath>

#include "engine/cuda/kernel.cuh"
#include "ops/rotary/rotary_kernels.h"

namespace hax {
namespace {

constexpr unsigned kThreads = 256;

// The sequence that a token belongs to: the last one that begins at or before it.
__device__ std::int64_t sequence_of(const std::int32_t* offsets, std::int64_t count,
                                    std::int64_t token) {
  std::int64_t low = 0, high = count - 1;
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (offsets[middle] <= token) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A thread takes one frequency of one row, for all heads: they turn by the same angle. rows, first:
// null where there are none.
template <class T>
__global__ void turn_kernel(const T* x, const std::int32_t* offsets, std::int64_t sequences,
                            const std::int32_t* rows, const std::int64_t* first, std::int64_t count,
                            std::int64_t heads, std::int64_t half, double theta, double direction,
                            T* y) {
  for (std::int64_t i = cuda::global_thread(); i < count * half; i += cuda::global_threads()) {
    const std::int64_t r = i / half, k = i % half;
    const std::int64_t token = rows == nullptr ? r : rows[r];
    const std::int64_t s = sequence_of(offsets, sequences, token);
    const std::int64_t position = token - offsets[s] + (first == nullptr ? 0 : first[s]);
    const double frequency = pow(theta, -static_cast<double>(k) / static_cast<double>(half));
    const double angle = static_cast<double>(position) * frequency;
    const auto c = static_cast<float>(cos(angle));
    const auto n = static_cast<float>(direction * sin(angle));
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t low = (r * heads + h) * 2 * half + k, high = low + half;
      const float a = cuda::to_float(x[low]), b = cuda::to_float(x[high]);
      y[low] = cuda::from_float<T>(a * c - b * n);
      y[high] = cuda::from_float<T>(b * c + a * n);
    }
  }
}

}  // namespace

void rotary_turn(Cuda, const Tensor& x, const Sequences& sequences, const RotaryOptions& options,
                 bool back, Tensor& y) {
  if (x.numel() == 0) return;
  const std::int64_t count = x.size(0), half = x.size(1) / options.heads / 2;
  const Tensor offsets = sequences.offsets_on(kCuda), &rows = options.rows;
  const Tensor& first = options.first_on_device;
  cuda::visit_storage("rotary", x.dtype(), [&]<class T>() {
    cuda::launch(turn_kernel<T>, {cuda::blocks_for(count * half, kThreads), kThreads}, x.data<T>(),
                 offsets.data<std::int32_t>(), sequences.count(),
                 rows.defined() ? rows.data<std::int32_t>() : nullptr,
                 first.defined() ? first.data<std::int64_t>() : nullptr, count, options.heads, half,
                 options.theta, back ? -1.0 : 1.0, y.data<T>());
  });
}

}  // namespace hax
