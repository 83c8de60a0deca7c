// Sums along time in their order, in double, by the threads of a block. Include in kernels.
#pragma once

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {

/// Numbers of some rows of a table in shared memory, column by column. The pad after each column
/// gives threads on neighbouring columns different banks, as the rows of a column have.
template <class T>
struct Columns {
  T* data;
  int rows;

  __device__ T& at(std::int64_t column, std::int64_t row) const {
    return data[column * (rows + 1) + row];
  }
  /// Numbers that `dim` columns take.
  __host__ __device__ static std::int64_t size(std::int64_t dim, int rows) {
    return dim * (rows + 1);
  }
};

/// s_t = initial + x_begin + ... + x_t for the rows of one sequence, tile after tile. A thread
/// takes a column of the tile, so that what it adds waits in shared memory; the sums are those of a
/// loop from left to right, to the bit.
template <class T>
class PrefixSums {
 public:
  /// x [.., dim]. `shared`: PrefixSums::shared_bytes(dim, rows), aligned to 8.
  __device__ PrefixSums(const T* x, std::int64_t dim, std::int64_t begin, std::int64_t end,
                        int rows, double* shared)
      : x_(x),
        dim_(dim),
        begin_(begin),
        end_(end),
        sums_{shared, rows},
        total_(shared + Columns<double>::size(dim, rows)),
        tile_{reinterpret_cast<float*>(total_ + dim), rows} {}

  static std::size_t shared_bytes(std::int64_t dim, int rows) {
    return static_cast<std::size_t>((Columns<double>::size(dim, rows) + dim) * 8 +
                                    Columns<float>::size(dim, rows) * 4);
  }

  /// From here on the sums begin with `initial` [dim], null: zero. Ends with a barrier.
  __device__ void start(const double* initial) {
    for (std::int64_t f = threadIdx.x; f < dim_; f += blockDim.x) {
      total_[f] = initial ? initial[f] : 0;
    }
    __syncthreads();
  }
  /// Takes up the rows from number `first` of the sequence on and returns how many; the rows before
  /// it have been taken up. Ends with a barrier; the caller puts one before the next call.
  __device__ int take_up(std::int64_t first) {
    const std::int64_t left = end_ - begin_ - first;
    const int rows = static_cast<int>(left < sums_.rows ? left : sums_.rows);
    for (std::int64_t i = threadIdx.x; i < rows * dim_; i += blockDim.x) {
      tile_.at(i % dim_, i / dim_) = to_float(x_[(begin_ + first) * dim_ + i]);
    }
    __syncthreads();
    for (std::int64_t f = threadIdx.x; f < dim_; f += blockDim.x) {
      double sum = total_[f];
      for (int b = 0; b < rows; ++b) sums_.at(f, b) = sum += static_cast<double>(tile_.at(f, b));
      total_[f] = sum;
    }
    __syncthreads();
    return rows;
  }

  /// Of the rows taken up last: s, which the caller may overwrite, and x.
  __device__ double& sum(std::int64_t column, std::int64_t row) const {
    return sums_.at(column, row);
  }
  __device__ double x(std::int64_t column, std::int64_t row) const { return tile_.at(column, row); }
  /// s after all rows taken up.
  __device__ double total(std::int64_t column) const { return total_[column]; }

 private:
  const T* x_;
  std::int64_t dim_, begin_, end_;
  Columns<double> sums_;
  double* total_;
  Columns<float> tile_;
};

/// Rows of a tile of `dim` columns that takes `bytes` a number and fits into a block's memory.
inline int rows_of_tile(const char* op, std::int64_t dim, std::int64_t bytes) {
  constexpr std::int64_t kBytes = 40 * 1024, kRows = 128;
  const std::int64_t rows = kBytes / (bytes * (dim > 0 ? dim : 1)) - 1;
  check(rows >= 1, "{}: rows of {} numbers on cuda, expected at most {}", op, dim,
        kBytes / (2 * bytes));
  return static_cast<int>(rows < kRows ? rows : kRows);
}

}  // namespace hax::cuda
