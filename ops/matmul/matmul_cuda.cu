#include <algorithm>

#include "engine/cuda/blas.h"
#include "engine/cuda/kernel.cuh"
#include "engine/cuda/reduce.cuh"
#include "ops/matmul/matmul_kernels.h"

namespace hax {
namespace {

constexpr unsigned kThreads = 256;

// Element i of a table of `columns` columns.
struct Place {
  std::int64_t row, column;
};
__device__ Place place_of(std::int64_t i, std::int64_t columns) {
  if (i < 0x80000000) {  // a division of 32 bits where that is enough
    const auto at = static_cast<std::uint32_t>(i), width = static_cast<std::uint32_t>(columns);
    return {at / width, at % width};
  }
  return {i / columns, i % columns};
}

// Tables side by side, and the column of x that each begins with.
template <class T>
struct Parts {
  static constexpr int kMost = 16;  // that go as one launch's argument
  T* data[kMost] = {};
  std::int64_t begin[kMost + 1] = {};
  int count = 0;

  __device__ int holding(std::int64_t column) const {
    int part = 0;
    while (column >= begin[part + 1]) ++part;
    return part;
  }
};

// Calls run(parts, first column, columns) for the parts, as many at a time as an argument holds.
template <class T, class Data, class F>
void in_groups(std::size_t count, const std::vector<std::int64_t>& widths, Data data, F run) {
  std::int64_t first = 0;
  for (std::size_t i = 0; i < count;) {
    Parts<T> parts;
    for (; i < count && parts.count < Parts<T>::kMost; ++i, ++parts.count) {
      parts.data[parts.count] = data(i);
      parts.begin[parts.count + 1] = parts.begin[parts.count] + widths[i];
    }
    const std::int64_t columns = parts.begin[parts.count];
    run(parts, first, columns);
    first += columns;
  }
}

// Columns first .. first + columns of x [rows, stride].
template <class T>
__global__ void split_kernel(const T* x, std::int64_t rows, std::int64_t stride, std::int64_t first,
                             std::int64_t columns, Parts<T> parts) {
  for (std::int64_t i = cuda::global_thread(); i < rows * columns; i += cuda::global_threads()) {
    const Place at = place_of(i, columns);
    const int part = parts.holding(at.column);
    const std::int64_t width = parts.begin[part + 1] - parts.begin[part];
    parts.data[part][at.row * width + at.column - parts.begin[part]] =
        x[at.row * stride + first + at.column];
  }
}

template <class T>
__global__ void join_kernel(Parts<const T> parts, std::int64_t rows, std::int64_t stride,
                            std::int64_t first, std::int64_t columns, T* x) {
  for (std::int64_t i = cuda::global_thread(); i < rows * columns; i += cuda::global_threads()) {
    const Place at = place_of(i, columns);
    const int part = parts.holding(at.column);
    const std::int64_t width = parts.begin[part + 1] - parts.begin[part];
    const T* from = parts.data[part];
    x[at.row * stride + first + at.column] =
        from == nullptr ? T{} : from[at.row * width + at.column - parts.begin[part]];
  }
}

template <class T>
__global__ void broadcast_kernel(const T* row, std::int64_t rows, std::int64_t dim, T* y) {
  for (std::int64_t i = cuda::global_thread(); i < rows * dim; i += cuda::global_threads()) {
    y[i] = row[place_of(i, dim).column];
  }
}

// A product over many rows with few results, the gradient of a weight: one block a tile of results
// would leave most of the device idle. So the rows are cut into parts, a product each, and their
// results added up. How many: enough to fill the device, by the sizes alone.
std::int64_t parts_of_rows(std::int64_t rows, std::int64_t m, std::int64_t n) {
  constexpr std::int64_t kTile = 64, kBlocks = 256, kLeast = 128;
  if (m == 0 || n == 0) return 1;
  const std::int64_t parts = kBlocks / (cuda::ceil_div(m, kTile) * cuda::ceil_div(n, kTile));
  return std::min(parts, rows / kLeast);
}

// Row r of what is added up for result d: a part's product, then what each of the rows adds that
// are left over, fewer than there are parts.
template <class T>
struct PartOrRow {
  const float* partial;
  const T *a, *b;  // the rows left over
  std::int64_t parts, m, n;
  __device__ float operator()(std::int64_t r, std::int64_t d) const {
    if (r < parts) return partial[r * m * n + d];
    const Place at = place_of(d, n);
    return cuda::to_float(a[(r - parts) * m + at.row]) *
           cuda::to_float(b[(r - parts) * n + at.column]);
  }
};

// c [M, N] = a^T b over the rows of a [R, M] and b [R, N].
void sum_of_parts(const Tensor& a, const Tensor& b, std::int64_t parts, Tensor& c) {
  const std::int64_t rows = a.size(0), m = a.size(1), n = b.size(1), part = rows / parts;
  Tensor partial = Tensor::empty({parts, m, n}, DType::float32, kCuda);
  cuda::gemm_strided_batched(c.dtype(), true, false, m, n, part, 1, a.raw(), m, part * m, b.raw(),
                             n, part * n, 0, partial.raw(), n, m * n, parts, DType::float32);
  cuda::visit_storage("matmul", c.dtype(), [&]<class T>() {
    const std::int64_t rest = parts * part;
    cuda::sum_over_few_rows(parts + rows - rest, m * n,
                            PartOrRow<T>{partial.data<float>(), a.data<T>() + rest * m,
                                         b.data<T>() + rest * n, parts, m, n},
                            c.data<T>());
  });
}

template <class T>
struct ReadTable {
  const T* table;
  std::int64_t dim;
  __device__ float operator()(std::int64_t r, std::int64_t d) const {
    return cuda::to_float(table[r * dim + d]);
  }
};

}  // namespace

void gemm(Cuda, const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, bool add,
          Tensor& c) {
  const std::int64_t depth = a.size(transpose_a ? 0 : 1);
  if (transpose_a && !transpose_b && !add) {
    const std::int64_t parts = parts_of_rows(depth, c.size(0), c.size(1));
    if (parts > 1) return sum_of_parts(a, b, parts, c);
  }
  cuda::gemm(c.dtype(), transpose_a, transpose_b, c.size(0), c.size(1), depth, 1, a.raw(),
             a.size(1), b.raw(), b.size(1), add ? 1.0f : 0.0f, c.raw(), c.size(1));
}

void split_columns(Cuda, const Tensor& x, std::vector<Tensor>& parts) {
  std::vector<std::int64_t> widths;
  for (const Tensor& part : parts) widths.push_back(part.size(1));
  const std::int64_t rows = x.size(0), stride = x.size(1);
  cuda::visit_storage("split_columns", x.dtype(), [&]<class T>() {
    in_groups<T>(
        parts.size(), widths, [&](std::size_t i) { return parts[i].data<T>(); },
        [&](const Parts<T>& group, std::int64_t first, std::int64_t columns) {
          cuda::launch(split_kernel<T>, {cuda::blocks_for(rows * columns, kThreads), kThreads},
                       x.data<T>(), rows, stride, first, columns, group);
        });
  });
}

void join_columns(Cuda, std::span<const Tensor> parts, const std::vector<std::int64_t>& widths,
                  Tensor& x) {
  const std::int64_t rows = x.size(0), stride = x.size(1);
  cuda::visit_storage("join_columns", x.dtype(), [&]<class T>() {
    in_groups<const T>(
        parts.size(), widths,
        [&](std::size_t i) { return parts[i].defined() ? parts[i].data<T>() : nullptr; },
        [&](const Parts<const T>& group, std::int64_t first, std::int64_t columns) {
          cuda::launch(join_kernel<T>, {cuda::blocks_for(rows * columns, kThreads), kThreads},
                       group, rows, stride, first, columns, x.data<T>());
        });
  });
}

void broadcast_rows(Cuda, const Tensor& row, Tensor& y) {
  cuda::visit_storage("broadcast_rows", y.dtype(), [&]<class T>() {
    cuda::launch(broadcast_kernel<T>, {cuda::blocks_for(y.numel(), kThreads), kThreads},
                 row.data<T>(), y.size(0), y.size(1), y.data<T>());
  });
}

void sum_rows(Cuda, const Tensor& x, Tensor& sum) {
  cuda::visit_storage("sum_rows", x.dtype(), [&]<class T>() {
    cuda::sum_over_rows(x.size(0), x.size(1), ReadTable<T>{x.data<T>(), x.size(1)}, sum.data<T>());
  });
}

}  // namespace hax
