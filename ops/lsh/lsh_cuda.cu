// A block hashes a sequence, tile after tile of its rows: the means run along time in their order,
// as on the CPU, so that every bin is the CPU's.
#include "engine/cuda/prefix_sums.cuh"
#include "ops/lsh/lsh_kernels.h"

namespace hax {
namespace {

constexpr unsigned kThreads = 128;
constexpr double kSmallestNorm = 1e-12;

template <class T>
struct Hashing {
  const std::int32_t *offsets, *padded;  // [S + 1], [S]
  const T *x, *hash;                     // [T, N], [N, h]
  std::int64_t dim, columns;
  LshRule rule;
  LshCenter center;
  double* sums;                     // [S, N], carried; null: from nothing
  const std::int64_t* rows_before;  // [S], carried with them
  double* divided;                  // [S, N, h], room for hash / norm; null: the causal norm
  std::int64_t* bins;
};

// The centred rows of this block's sequence, a tile of them in shared memory.
template <class T>
class Centring {
 public:
  __device__ Centring(const Hashing<T>& in, int rows, double* shared)
      : in_(in),
        begin_(in.offsets[blockIdx.x]),
        end_(in.offsets[blockIdx.x + 1]),
        rows_(rows),
        mean_(shared),
        prefix_(in.x, in.dim, begin_, end_, rows, shared + in.dim) {}

  static std::size_t shared_bytes(std::int64_t dim, int rows) {
    return static_cast<std::size_t>(dim) * 8 + cuda::PrefixSums<T>::shared_bytes(dim, rows);
  }
  __device__ std::int64_t begin() const { return begin_; }
  __device__ std::int64_t length() const { return end_ - begin_; }
  __device__ std::int64_t padded() const { return in_.padded[blockIdx.x]; }

  // Before the first tile.
  __device__ void start() {
    const std::int64_t s = blockIdx.x;
    before_ = in_.rows_before ? in_.rows_before[s] : 0;
    prefix_.start(in_.sums ? in_.sums + s * in_.dim : nullptr);
    if (in_.center != LshCenter::sequence) return;
    for (std::int64_t first = 0; first < length(); first += rows_) {
      prefix_.take_up(first);
      __syncthreads();
    }
    for (std::int64_t f = threadIdx.x; f < in_.dim; f += blockDim.x) {
      mean_[f] = prefix_.total(f) / static_cast<double>(padded());
    }
    __syncthreads();
  }
  // Centres the rows from number `first` on and returns how many. Ends with a barrier; the caller
  // puts one before the next call.
  __device__ int take_up(std::int64_t first) {
    const int rows = prefix_.take_up(first);
    for (std::int64_t i = threadIdx.x; i < rows * in_.dim; i += blockDim.x) {
      const std::int64_t f = i % in_.dim, b = i / in_.dim;
      double mean = 0;
      if (in_.center == LshCenter::causal) {
        // Divided, not multiplied by 1 / count: equal float32 rows then centre to exactly zero.
        mean = prefix_.sum(f, b) / static_cast<double>(before_ + first + b + 1);
      } else if (in_.center == LshCenter::sequence) {
        mean = mean_[f];
      }
      prefix_.sum(f, b) = prefix_.x(f, b) - mean;
    }
    __syncthreads();
    return rows;
  }
  __device__ double feature(std::int64_t f, std::int64_t b) const { return prefix_.sum(f, b); }
  // The sum of the rows so far.
  __device__ double total(std::int64_t f) const { return prefix_.total(f); }

  // After the last tile: the sum of squares of feature f over the pads, zero vectors that centring
  // turns into -mean.
  __device__ double pad_square(std::int64_t f) const {
    double square = 0;
    for (std::int64_t t = length(); t < padded(); ++t) {
      const double mean = in_.center == LshCenter::causal ? total(f) / static_cast<double>(t + 1)
                          : in_.center == LshCenter::sequence ? mean_[f]
                                                              : 0;
      square += mean * mean;
    }
    return square;
  }

 private:
  const Hashing<T>& in_;
  std::int64_t begin_, end_, before_ = 0;
  int rows_;
  double* mean_;  // [N], of the whole sequence
  cuda::PrefixSums<T> prefix_;
};

// divided [N, h] := hash / norm of feature f over the padded sequence, the same projections as
// those of divided features. Ends with a barrier.
template <class T>
__device__ void divide_by_norms(const Hashing<T>& in, Centring<T>& centring, int rows,
                                double* square, double* divided) {
  centring.start();
  for (std::int64_t f = threadIdx.x; f < in.dim; f += blockDim.x) square[f] = 0;
  for (std::int64_t first = 0; first < centring.length(); first += rows) {
    const int count = centring.take_up(first);
    for (std::int64_t f = threadIdx.x; f < in.dim; f += blockDim.x) {
      double sum = square[f];
      for (int b = 0; b < count; ++b) sum += centring.feature(f, b) * centring.feature(f, b);
      square[f] = sum;
    }
    __syncthreads();
  }
  for (std::int64_t f = threadIdx.x; f < in.dim; f += blockDim.x) {
    const double norm = sqrt(square[f] + centring.pad_square(f));
    for (std::int64_t c = 0; c < in.columns; ++c) {
      divided[f * in.columns + c] =
          static_cast<double>(cuda::to_float(in.hash[f * in.columns + c])) /
          (norm > kSmallestNorm ? norm : kSmallestNorm);
    }
  }
  __syncthreads();
}

__device__ double weight_of(double weight) { return weight; }
__device__ double weight_of(float weight) { return weight; }
__device__ double weight_of(Bfloat16 weight) { return cuda::to_float(weight); }

// The bin of row b of the tile. hash [N, h].
template <class T, class W>
__device__ std::int64_t bin_of(const Hashing<T>& in, const Centring<T>& centring, const W* hash,
                               int b) {
  std::int64_t bin = 0;
  double best = 0;
  for (std::int64_t c = 0; c < in.columns; ++c) {
    double sum = centring.feature(0, b) * weight_of(hash[c]);
    for (std::int64_t f = 1; f < in.dim; ++f) {
      sum += centring.feature(f, b) * weight_of(hash[f * in.columns + c]);
    }
    if (in.rule == LshRule::sign_bits) {
      bin |= sum > 0 ? std::int64_t{1} << c : 0;
    } else if (c == 0 || sum > best) {
      best = sum;
      bin = c;
    }
  }
  return bin;
}

template <class T>
__global__ void hash_kernel(Hashing<T> in, int rows) {
  auto* shared = cuda::dynamic_shared<double>();
  Centring<T> centring(in, rows, shared + in.dim);
  const std::int64_t s = blockIdx.x;
  double* divided = in.divided ? in.divided + s * in.dim * in.columns : nullptr;
  if (divided) divide_by_norms(in, centring, rows, shared, divided);
  centring.start();
  for (std::int64_t first = 0; first < centring.length(); first += rows) {
    const int count = centring.take_up(first);
    for (int b = static_cast<int>(threadIdx.x); b < count; b += static_cast<int>(blockDim.x)) {
      in.bins[centring.begin() + first + b] =
          divided ? bin_of(in, centring, divided, b) : bin_of(in, centring, in.hash, b);
    }
    __syncthreads();
  }
  if (!in.sums) return;
  for (std::int64_t f = threadIdx.x; f < in.dim; f += blockDim.x) {
    in.sums[s * in.dim + f] = centring.total(f);
  }
}

}  // namespace

void hash_rows(Cuda, const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
               LshCenter center, NormMode norm, CarriedMean* mean, Tensor& bins) {
  const std::int64_t dim = x.size(1), columns = hash.size(1);
  Tensor divided, before;
  if (norm == NormMode::released) {
    divided = Tensor::empty({sequences.count(), dim, columns}, DType::float64, kCuda);
  }
  if (mean != nullptr) before = Tensor::from(mean->rows).to(kCuda);
  const int rows = cuda::rows_of_tile("lsh_bins", dim, 12);
  cuda::visit_storage("lsh_bins", x.dtype(), [&]<class T>() {
    const Hashing<T> in{sequences.offsets_on(kCuda).data<std::int32_t>(),
                        sequences.padded_on(kCuda).data<std::int32_t>(),
                        x.data<T>(),
                        hash.data<T>(),
                        dim,
                        columns,
                        rule,
                        center,
                        mean != nullptr ? mean->sum.data<double>() : nullptr,
                        mean != nullptr ? before.data<std::int64_t>() : nullptr,
                        divided.defined() ? divided.data<double>() : nullptr,
                        bins.data<std::int64_t>()};
    const std::size_t bytes =
        static_cast<std::size_t>(dim) * 8 + Centring<T>::shared_bytes(dim, rows);
    cuda::launch(hash_kernel<T>, {cuda::blocks(sequences.count()), kThreads, bytes}, in, rows);
  });
  if (mean == nullptr) return;
  for (std::size_t s = 0; s < mean->rows.size(); ++s) {
    mean->rows[s] += sequences.length(static_cast<std::int64_t>(s));
  }
}

}  // namespace hax
