// A block takes a sequence, tile after tile of its rows. Sums run along time in their order, as on
// the CPU.
#include "engine/cuda/prefix_sums.cuh"
#include "ops/running_sum/running_sum_kernels.h"

namespace hax {
namespace {

using cuda::from_float;
using cuda::to_float;

constexpr unsigned kThreads = 128;
constexpr double kSmallestNorm = 1e-12;

__device__ double at_least_smallest(double norm) {
  return norm > kSmallestNorm ? norm : kSmallestNorm;
}

template <class T>
struct Pack {
  const std::int32_t *offsets, *padded;
  std::int64_t dim;
  bool released;
  const T* x;             // forward
  const double* initial;  // forward, or null
  T* y;                   // written forward, read backward
  double *norms, *final_sum;
};

template <class T>
__global__ void forward_kernel(Pack<T> in, int rows) {
  const std::int64_t s = blockIdx.x, begin = in.offsets[s], end = in.offsets[s + 1];
  const std::int64_t length = end - begin, dim = in.dim;
  auto* shared = cuda::dynamic_shared<double>();
  double* row_norm = shared;  // [rows]
  cuda::PrefixSums<T> prefix(in.x, dim, begin, end, rows, shared + rows);
  double* column_norm = in.norms + s * dim;  // released

  if (in.released) {
    prefix.start(nullptr);
    for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) column_norm[f] = 0;
    for (std::int64_t first = 0; first < length; first += rows) {
      const int count = prefix.take_up(first);
      for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) {
        double square = column_norm[f];
        for (int b = 0; b < count; ++b) {
          // The sum stays what it is over the pads after the last row.
          const double times =
              first + b == length - 1 ? 1.0 + static_cast<double>(in.padded[s] - length) : 1.0;
          square += times * prefix.sum(f, b) * prefix.sum(f, b);
        }
        column_norm[f] = square;
      }
      __syncthreads();
    }
    for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) {
      column_norm[f] = at_least_smallest(sqrt(column_norm[f]));
    }
  }

  prefix.start(in.initial ? in.initial + s * dim : nullptr);
  for (std::int64_t first = 0; first < length; first += rows) {
    const int count = prefix.take_up(first);
    if (!in.released) {
      for (int b = static_cast<int>(threadIdx.x); b < count; b += static_cast<int>(blockDim.x)) {
        double square = 0;
        for (std::int64_t f = 0; f < dim; ++f) square += prefix.sum(f, b) * prefix.sum(f, b);
        row_norm[b] = in.norms[begin + first + b] = at_least_smallest(sqrt(square));
      }
      __syncthreads();
    }
    for (std::int64_t i = threadIdx.x; i < count * dim; i += blockDim.x) {
      const std::int64_t f = i % dim, b = i / dim;
      const double norm = in.released ? column_norm[f] : row_norm[b];
      in.y[(begin + first) * dim + i] = from_float<T>(static_cast<float>(prefix.sum(f, b) / norm));
    }
    __syncthreads();
  }
  for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) {
    in.final_sum[s * dim + f] = prefix.total(f);
  }
}

// dfinal and dy may be null: zero; dinitial null: not wanted.
template <class T>
__global__ void backward_kernel(Pack<T> in, int rows, const T* dy, const double* dfinal, T* dx,
                                double* dinitial) {
  const std::int64_t s = blockIdx.x, begin = in.offsets[s], end = in.offsets[s + 1];
  const std::int64_t length = end - begin, dim = in.dim;
  auto* shared = cuda::dynamic_shared<double>();
  double *dot = shared, *total = dot + (rows > dim ? rows : dim);  // [rows] or [dim], [dim]
  const cuda::Columns<double> ds{total + dim, rows};
  const double* column_norm = in.norms + s * dim;

  // y . dy of a column over the sequence; of a row it is found tile by tile.
  for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) {
    total[f] = dfinal ? dfinal[s * dim + f] : 0;
    if (!in.released || !dy) continue;
    double sum = 0;
    for (std::int64_t i = begin * dim + f; i < end * dim; i += dim) {
      sum += static_cast<double>(to_float(in.y[i])) * static_cast<double>(to_float(dy[i]));
    }
    dot[f] = column_norm[f] > kSmallestNorm ? sum : 0;
  }
  __syncthreads();

  for (std::int64_t first = (length - 1) / rows * rows; first >= 0 && length > 0; first -= rows) {
    const int count = static_cast<int>(length - first < rows ? length - first : rows);
    const std::int64_t at = (begin + first) * dim;
    if (!in.released && dy) {
      for (int b = static_cast<int>(threadIdx.x); b < count; b += static_cast<int>(blockDim.x)) {
        double sum = 0;
        for (std::int64_t i = at + b * dim; i < at + (b + 1) * dim; ++i) {
          sum += static_cast<double>(to_float(in.y[i])) * static_cast<double>(to_float(dy[i]));
        }
        dot[b] = in.norms[begin + first + b] > kSmallestNorm ? sum : 0;
      }
      __syncthreads();
    }
    for (std::int64_t i = threadIdx.x; i < count * dim; i += blockDim.x) {
      const std::int64_t f = i % dim, b = i / dim;
      double gradient = 0;
      if (dy) {
        const double y = to_float(in.y[at + i]), g = to_float(dy[at + i]);
        if (in.released) {
          const double times =
              first + b == length - 1 ? 1.0 + static_cast<double>(in.padded[s] - length) : 1.0;
          gradient = (g - times * y * dot[f]) / column_norm[f];
        } else {
          gradient = (g - y * dot[b]) / in.norms[begin + first + b];
        }
      }
      ds.at(f, b) = gradient;
    }
    __syncthreads();
    for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) {
      double sum = total[f];
      for (int b = count - 1; b >= 0; --b) ds.at(f, b) = sum += ds.at(f, b);
      total[f] = sum;
    }
    __syncthreads();
    for (std::int64_t i = threadIdx.x; i < count * dim; i += blockDim.x) {
      dx[at + i] = from_float<T>(static_cast<float>(ds.at(i % dim, i / dim)));
    }
    __syncthreads();
  }
  if (!dinitial) return;
  for (std::int64_t f = threadIdx.x; f < dim; f += blockDim.x) dinitial[s * dim + f] = total[f];
}

template <class T>
Pack<T> pack_of(const Sequences& sequences, NormMode mode, const Tensor& y, const Tensor& norms) {
  Pack<T> pack{};
  pack.offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  pack.padded = sequences.padded_on(kCuda).data<std::int32_t>();
  pack.dim = y.size(1);
  pack.released = mode == NormMode::released;
  pack.y = const_cast<T*>(y.data<T>());
  pack.norms = const_cast<double*>(norms.data<double>());
  return pack;
}

}  // namespace

void running_sum_forward(Cuda, const Tensor& x, const Tensor& initial, const Sequences& sequences,
                         NormMode mode, Tensor& y, Tensor& norms, Tensor& final_sum) {
  const int rows = cuda::rows_of_tile("normalized_running_sum", x.size(1), 12);
  cuda::visit_storage("normalized_running_sum", x.dtype(), [&]<class T>() {
    Pack<T> pack = pack_of<T>(sequences, mode, y, norms);
    pack.x = x.data<T>();
    pack.initial = initial.defined() ? initial.data<double>() : nullptr;
    pack.final_sum = final_sum.data<double>();
    const std::size_t bytes =
        static_cast<std::size_t>(rows) * 8 + cuda::PrefixSums<T>::shared_bytes(pack.dim, rows);
    cuda::launch(forward_kernel<T>, {cuda::blocks(sequences.count()), kThreads, bytes}, pack, rows);
  });
}

void running_sum_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const Tensor& y,
                          const Tensor& norms, const Sequences& sequences, NormMode mode,
                          Tensor& dx, Tensor& dinitial) {
  const std::int64_t dim = y.size(1);
  const int rows = cuda::rows_of_tile("normalized_running_sum", dim, 12);
  const std::int64_t numbers =
      (rows > dim ? rows : dim) + dim + cuda::Columns<double>::size(dim, rows);
  cuda::visit_storage("normalized_running_sum", y.dtype(), [&]<class T>() {
    cuda::launch(backward_kernel<T>,
                 {cuda::blocks(sequences.count()), kThreads, static_cast<std::size_t>(numbers) * 8},
                 pack_of<T>(sequences, mode, y, norms), rows, dy.defined() ? dy.data<T>() : nullptr,
                 dfinal.defined() ? dfinal.data<double>() : nullptr, dx.data<T>(),
                 dinitial.defined() ? dinitial.data<double>() : nullptr);
  });
}

}  // namespace hax
