#include "engine/cuda/chains.cuh"
#include "ops/running_sum/running_sum_kernels.h"

namespace hax {

using cuda::ChainPlace;
using cuda::to_float;

namespace {

constexpr double kSmallestNorm = 1e-12;
constexpr int kThreads = 128;

__device__ double norm_of(double square) {
  const double norm = sqrt(square);
  return norm > kSmallestNorm ? norm : kSmallestNorm;
}

// How often the sum after token t enters a released norm: padding repeats the last one.
__device__ double times_of(const ChainPlace& place, std::int64_t t, const std::int32_t* padded) {
  if (t != place.end - 1) return 1.0;
  return 1.0 + static_cast<double>(padded[place.sequence] - (place.end - place.begin));
}

// Running sums, noted where pieces begin; with the released norms of the sums.
template <class T>
struct Sums {
  const T* x;
  const double* initial;       // [S, N] or null: zero
  const std::int32_t* padded;  // [S]; null: no released norms
  cuda::SumStarts starts;
  double *norms, *final_sum;  // [S, N]

  struct State {
    double sum, square;
  };
  __device__ std::int64_t at(const ChainPlace& place) const {
    return place.sequence * starts.columns + place.column;
  }
  __device__ double value(const ChainPlace& place, std::int64_t t) const {
    return to_float(x[t * starts.columns + place.column]);
  }
  __device__ State begin(const ChainPlace& place) const {
    return {initial ? initial[at(place)] : 0.0, 0.0};
  }
  __device__ void mark(const State& state, const ChainPlace& place, std::int64_t step) const {
    starts.note(place, step, state.sum);
  }
  __device__ void step(State& state, const ChainPlace& place, std::int64_t t, double value) const {
    state.sum += value;
    if (padded) state.square = fma(times_of(place, t, padded) * state.sum, state.sum, state.square);
  }
  __device__ void finish(const State& state, const ChainPlace& place) const {
    final_sum[at(place)] = state.sum;
    if (padded) norms[at(place)] = norm_of(state.square);
  }
};

// y, and causal norms [T]. A block takes a piece: its sums again, then a thread a row's norm.
template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(cuda::Pieces pieces, const T* x, const double* starts, std::int64_t dim,
                   bool causal, double* norms, T* y, double* far) {
  HAX_SHARED(row_norms, double[cuda::kSumPiece]);
  const cuda::Piece piece = pieces.at(blockIdx.x);
  if (piece.begin == piece.end) return;  // the whole block
  double* sums = cuda::table_of(far, dim);
  cuda::sums_of_piece(x, dim, piece, starts + std::int64_t{blockIdx.x} * dim, sums);
  const int rows = static_cast<int>(piece.end - piece.begin), width = static_cast<int>(dim);
  const int thread = static_cast<int>(threadIdx.x);
  if (causal) {
    if (thread < rows) {
      double square = 0;
      for (std::int64_t f = 0; f < dim; ++f) {
        const double sum = sums[f * cuda::kSumPitch + thread];
        square = fma(sum, sum, square);
      }
      norms[piece.begin + thread] = row_norms[thread] = norm_of(square);
    }
    __syncthreads();
  }
  for (int i = thread; i < rows * width; i += kThreads) {
    const int row = i / width, f = i % width;
    const double norm = causal ? row_norms[row] : norms[piece.sequence * dim + f];
    y[piece.begin * dim + i] =
        cuda::from_float<T>(static_cast<float>(sums[f * cuda::kSumPitch + row] / norm));
  }
}

// dots [T]: y . dy of each row, none where y is linear.
template <class T>
__global__ void dots_kernel(const T* y, const T* dy, const double* norms, std::int64_t tokens,
                            std::int64_t dim, double* dots) {
  for (std::int64_t t = cuda::global_thread(); t < tokens; t += cuda::global_threads()) {
    double dot = 0;
    for (std::int64_t f = 0; norms[t] > kSmallestNorm && f < dim; ++f) {
      dot = fma(static_cast<double>(to_float(y[t * dim + f])),
                static_cast<double>(to_float(dy[t * dim + f])), dot);
    }
    dots[t] = dot;
  }
}

// dots [S, N]: y . dy of each feature over time, none where y is linear.
template <class T>
struct FeatureDots {
  const T *y, *dy;
  const double* norms;
  std::int64_t dim;
  double* dots;

  using State = double;
  __device__ double value(const ChainPlace& place, std::int64_t t) const {
    const std::int64_t i = t * dim + place.column;  // exact: two floats' product fits a double
    return static_cast<double>(to_float(y[i])) * static_cast<double>(to_float(dy[i]));
  }
  __device__ State begin(const ChainPlace&) const { return 0.0; }
  __device__ void mark(State, const ChainPlace&, std::int64_t) const {}
  __device__ void step(State& dot, const ChainPlace&, std::int64_t, double value) const {
    dot += value;
  }
  __device__ void finish(State dot, const ChainPlace& place) const {
    const std::int64_t i = place.sequence * dim + place.column;
    dots[i] = norms[i] <= kSmallestNorm ? 0.0 : dot;
  }
};

// From the last token on: dx is the running sum of the sums' gradients.
template <class T>
struct Gradients {
  const T *y, *dy;  // dy may be null: zero
  const double *norms, *dots, *dfinal;
  const std::int32_t* padded;  // null: causal norms
  std::int64_t dim;
  T* dx;
  double* dinitial;  // null: not wanted

  using State = double;
  __device__ double value(const ChainPlace& place, std::int64_t t) const {
    if (!dy) return 0.0;
    const std::int64_t i = t * dim + place.column,
                       n = padded ? place.sequence * dim + place.column : t;
    const double times = padded ? times_of(place, t, padded) : 1.0;
    const double along = times * static_cast<double>(to_float(y[i]));
    return fma(-along, dots[n], static_cast<double>(to_float(dy[i]))) / norms[n];
  }
  __device__ State begin(const ChainPlace& place) const {
    return dfinal ? dfinal[place.sequence * dim + place.column] : 0.0;
  }
  __device__ void mark(State, const ChainPlace&, std::int64_t) const {}
  __device__ void step(State& sum, const ChainPlace& place, std::int64_t t, double value) const {
    sum += value;
    dx[t * dim + place.column] = cuda::from_float<T>(static_cast<float>(sum));
  }
  __device__ void finish(State sum, const ChainPlace& place) const {
    if (dinitial) dinitial[place.sequence * dim + place.column] = sum;
  }
};

const double* or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<double>() : nullptr;
}

}  // namespace

void running_sum_forward(Cuda, const Tensor& x, const Tensor& initial, const Sequences& sequences,
                         NormMode mode, Tensor& y, Tensor& norms, Tensor& final_sum) {
  const std::int64_t tokens = x.size(0), dim = x.size(1), count = sequences.count();
  const bool causal = mode == NormMode::causal;
  const std::int32_t* offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  const std::int32_t* padded = causal ? nullptr : sequences.padded_on(kCuda).data<std::int32_t>();
  const cuda::Pieces pieces{offsets, count, cuda::kSumPiece};
  const std::int64_t places = cuda::piece_places(tokens, count, cuda::kSumPiece);
  Tensor starts = Tensor::empty({places, dim}, DType::float64, kCuda);
  cuda::SumTables tables(dim, places);
  cuda::visit_storage("normalized_running_sum", x.dtype(), [&]<class T>() {
    const Sums<T> sums{
        x.data<T>(),          or_null(initial),        padded, {starts.data<double>(), dim},
        norms.data<double>(), final_sum.data<double>()};
    cuda::run_chains(offsets, count, dim, sums);
    cuda::launch(forward_kernel<T>,
                 {cuda::blocks(places), unsigned{kThreads}, tables.shared_bytes()}, pieces,
                 x.data<T>(), starts.data<double>(), dim, causal, norms.data<double>(), y.data<T>(),
                 tables.far());
  });
}

void running_sum_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const Tensor& y,
                          const Tensor& norms, const Sequences& sequences, NormMode mode,
                          Tensor& dx, Tensor& dinitial) {
  const std::int64_t tokens = y.size(0), dim = y.size(1), count = sequences.count();
  const bool causal = mode == NormMode::causal;
  const std::int32_t* offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  const std::int32_t* padded = causal ? nullptr : sequences.padded_on(kCuda).data<std::int32_t>();
  Tensor dots = Tensor::empty(norms.shape(), DType::float64, kCuda);
  cuda::visit_storage("normalized_running_sum", y.dtype(), [&]<class T>() {
    const T* dout = dy.defined() ? dy.data<T>() : nullptr;
    if (dout && causal) {
      cuda::launch(dots_kernel<T>, {cuda::blocks_for(tokens, kThreads), unsigned{kThreads}},
                   y.data<T>(), dout, norms.data<double>(), tokens, dim, dots.data<double>());
    } else if (dout) {
      cuda::run_chains(
          offsets, count, dim,
          FeatureDots<T>{y.data<T>(), dout, norms.data<double>(), dim, dots.data<double>()});
    }
    const Gradients<T> gradients{y.data<T>(),
                                 dout,
                                 norms.data<double>(),
                                 dots.data<double>(),
                                 or_null(dfinal),
                                 padded,
                                 dim,
                                 dx.data<T>(),
                                 dinitial.defined() ? dinitial.data<double>() : nullptr};
    cuda::run_chains<true>(offsets, count, dim, gradients);
  });
}

}  // namespace hax
