#include "engine/cuda/kernel.cuh"
#include "engine/cuda/reduce.cuh"
#include "ops/embedding/embedding_kernels.h"

namespace hax {

using cuda::kAllLanes;
using cuda::kWarp;

namespace {

constexpr unsigned kThreads = 256;

// Number i of y, in a table of `dim` columns: a division of 32 bits where that is enough.
__device__ std::int64_t row_of(std::int64_t i, std::int64_t dim) {
  if (i < 0x80000000) return static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(dim);
  return i / dim;
}

// An index outside the table gives NaN: nothing on the device can throw.
template <class T>
__global__ void forward_kernel(const T* table, std::int64_t rows, const std::int32_t* index,
                               std::int64_t count, std::int64_t dim, T* y) {
  for (std::int64_t i = cuda::global_thread(); i < count * dim; i += cuda::global_threads()) {
    const std::int64_t t = row_of(i, dim), at = index[t];
    y[i] = 0 <= at && at < rows ? table[at * dim + i - t * dim]
                                : cuda::from_float<T>(__int_as_float(0x7fc00000));
  }
}

// The gradient. A warp owns kRows rows of the table in kColumns columns, for one part of the
// indices. It reads 32 indices at a time, and a vote says which of them are its rows' own; these
// are added in the order of t.
constexpr int kRows = 32, kColumns = 64, kWarps = 4;
constexpr int kPerLane = kColumns / kWarp;
constexpr int kAhead = 4;  // rows of dy on their way while others are added

template <class From, class To>
__global__ void backward_kernel(const From* dy, const std::int32_t* index, std::int64_t count,
                                std::int64_t per_part, std::int64_t rows, std::int64_t dim,
                                std::int64_t tiles, To* sums) {
  HAX_SHARED(shares, float[kWarps][kRows * kColumns]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t unit = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  const std::int64_t first_row = unit / tiles * kRows;
  const std::int64_t first_column = unit % tiles * kColumns + lane;
  if (first_row >= rows) return;
  float* share = shares[warp];  // a lane touches its own columns only
  for (int i = lane; i < kRows * kColumns; i += kWarp) share[i] = 0;

  const std::int64_t begin = blockIdx.y * per_part;
  const std::int64_t end = begin + per_part < count ? begin + per_part : count;
  for (std::int64_t base = begin; base < end; base += kWarp) {
    const std::int64_t mine = base + lane;
    const std::int64_t local = mine < end ? index[mine] - first_row : -1;
    unsigned hits = __ballot_sync(kAllLanes, 0 <= local && local < kRows);
    while (hits != 0) {
      float values[kAhead][kPerLane];
      int to[kAhead];
      for (int j = 0; j < kAhead; ++j) {
        to[j] = -1;
        if (hits == 0) continue;
        const int hit = __ffs(static_cast<int>(hits)) - 1;
        hits &= hits - 1;
        to[j] = __shfl_sync(kAllLanes, static_cast<int>(local), hit);
        const From* row = dy + (base + hit) * dim;
        for (int k = 0; k < kPerLane; ++k) {
          const std::int64_t d = first_column + k * kWarp;
          values[j][k] = d < dim ? cuda::to_float(row[d]) : 0;
        }
      }
      for (int j = 0; j < kAhead; ++j) {
        if (to[j] < 0) continue;
        for (int k = 0; k < kPerLane; ++k)
          share[to[j] * kColumns + k * kWarp + lane] += values[j][k];
      }
    }
  }

  To* out = sums + blockIdx.y * rows * dim;
  for (int r = 0; r < kRows && first_row + r < rows; ++r) {
    for (int k = 0; k < kPerLane; ++k) {
      const std::int64_t d = first_column + k * kWarp;
      if (d < dim) {
        out[(first_row + r) * dim + d] =
            cuda::from_float<To>(share[r * kColumns + k * kWarp + lane]);
      }
    }
  }
}

}  // namespace

void embedding_forward(Cuda, const Tensor& table, const Tensor& index, Tensor& y) {
  cuda::visit_storage("embedding", table.dtype(), [&]<class T>() {
    cuda::launch(forward_kernel<T>, {cuda::blocks_for(y.numel(), kThreads), kThreads},
                 table.data<T>(), table.size(0), index.data<std::int32_t>(), index.size(0),
                 table.size(1), y.data<T>());
  });
}

void embedding_backward(Cuda, const Tensor& dy, const Tensor& index, Tensor& dtable) {
  const std::int64_t rows = dtable.size(0), dim = dtable.size(1), count = index.size(0);
  if (dtable.numel() == 0) return;
  const std::int64_t tiles = cuda::ceil_div(dim, kColumns);
  const std::int64_t units = cuda::ceil_div(rows, kRows) * tiles;
  // A small table leaves the device idle unless the indices are cut into parts, too: at least 128
  // indices each, and few enough warps in all that the parts' tables stay small beside dy.
  constexpr std::int64_t kPart = 128, kUnits = 2048;
  std::int64_t parts = cuda::ceil_div(count, kPart);
  parts = parts * units > kUnits ? kUnits / units : parts;
  parts = parts < 1 ? 1 : (parts > 256 ? 256 : parts);
  const std::int64_t per_part = cuda::ceil_div(cuda::ceil_div(count, parts), kWarp) * kWarp;
  const unsigned across = cuda::blocks(cuda::ceil_div(units, kWarps));
  cuda::visit_storage("embedding", dy.dtype(), [&]<class T>() {
    const auto run = [&]<class To>(To* sums) {
      cuda::launch(backward_kernel<T, To>,
                   {dim3(across, cuda::blocks(parts)), dim3(kWarps * kWarp)}, dy.data<T>(),
                   index.data<std::int32_t>(), count, per_part, rows, dim, tiles, sums);
    };
    if (parts == 1) return run(dtable.data<T>());
    Tensor partial = Tensor::empty({parts, rows, dim}, DType::float32, kCuda);
    run(partial.data<float>());
    cuda::sum_partials(partial.data<float>(), parts, rows * dim, dtable.data<T>());
  });
}

}  // namespace hax
