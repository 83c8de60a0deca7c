// Sums over the rows of a table, for gradients of weights: two stages in a fixed order, no atomics,
// so that two runs agree to the bit.
#pragma once

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {

/// Partial sums of one column in the first stage; depends on the number of rows alone.
inline std::int64_t row_parts(std::int64_t rows) {
  const std::int64_t parts = ceil_div(rows, 64);
  return parts < 256 ? parts : 256;
}

namespace detail {

inline constexpr int kColumns = 32, kRowLanes = 8;

// A block sums 32 columns over one part of the rows: a thread takes every 8th row of its column.
// sums [parts, dim].
template <class T, class F>
__global__ void row_sums_kernel(F f, std::int64_t rows, std::int64_t dim, T* sums) {
  HAX_SHARED(lanes, float[kRowLanes][kColumns]);
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int lane = static_cast<int>(threadIdx.x) / kColumns;
  const std::int64_t d = static_cast<std::int64_t>(blockIdx.x) * kColumns + column;
  const std::int64_t per_part = ceil_div(rows, gridDim.y), begin = blockIdx.y * per_part;
  const std::int64_t end = begin + per_part < rows ? begin + per_part : rows;
  float sum = 0;
  if (d < dim) {
    for (std::int64_t r = begin + lane; r < end; r += kRowLanes) sum += f(r, d);
  }
  lanes[lane][column] = sum;
  __syncthreads();
  if (lane == 0 && d < dim) {
    for (int other = 1; other < kRowLanes; ++other) sum += lanes[other][column];
    sums[blockIdx.y * dim + d] = from_float<T>(sum);
  }
}

struct ReadFloat {
  const float* table;
  std::int64_t dim;
  __device__ float operator()(std::int64_t r, std::int64_t d) const { return table[r * dim + d]; }
};

}  // namespace detail

/// out [dim] = sum over r of f(r, d) as below, in one stage: for at most a few hundred rows.
template <class T, class F>
void sum_over_few_rows(std::int64_t rows, std::int64_t dim, const F& f, T* out) {
  launch(detail::row_sums_kernel<T, F>,
         {blocks(ceil_div(dim, detail::kColumns)), detail::kColumns * detail::kRowLanes}, f, rows,
         dim, out);
}

/// partial [parts, dim] -> out [dim], the sum over the parts. At most a few hundred parts.
template <class T>
void sum_partials(const float* partial, std::int64_t parts, std::int64_t dim, T* out) {
  sum_over_few_rows(parts, dim, detail::ReadFloat{partial, dim}, out);
}

/// out [dim] = sum over r of f(r, d), 0 without rows. F: a struct with
/// `__device__ float operator()(int64 r, int64 d) const`, called once for every r and d.
template <class T, class F>
void sum_over_rows(std::int64_t rows, std::int64_t dim, const F& f, T* out) {
  const std::int64_t parts = row_parts(rows);
  const dim3 threads(detail::kColumns * detail::kRowLanes);
  const unsigned columns = blocks(ceil_div(dim, detail::kColumns));
  if (parts <= 1) return sum_over_few_rows(rows, dim, f, out);
  Tensor partial = Tensor::empty({parts, dim}, DType::float32, kCuda);
  launch(detail::row_sums_kernel<float, F>, {dim3(columns, blocks(parts)), threads}, f, rows, dim,
         partial.data<float>());
  sum_partials(partial.data<float>(), parts, dim, out);
}

}  // namespace hax::cuda
