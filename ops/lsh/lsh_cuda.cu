#include "engine/cuda/chains.cuh"
#include "ops/lsh/lsh_kernels.h"

namespace hax {

using cuda::ChainPlace;
using cuda::kSumPitch;
using cuda::kWarp;
using cuda::to_float;

namespace {

// Columns of the hash matrix are shared out to the warps of a block; a lane has a token.
constexpr int kWarps = 4;

__device__ double as_double(double x) { return x; }
template <class T>
__device__ double as_double(T x) {
  return static_cast<double>(to_float(x));
}

// The rows of each sequence before this piece of it; null: none.
__device__ std::int64_t rows_before(const std::int64_t* rows, std::int64_t s) {
  return rows ? rows[s] : 0;
}

// Running sums for the causal centre, noted where pieces begin and carried from call to call; or
// the mean over the padded sequence.
template <class T>
struct CentreSums {
  const T* x;
  cuda::SumStarts starts;      // for the causal centre
  double* carried;             // [S, N], read and brought forward; null: nothing is carried
  const std::int32_t* padded;  // [S]
  double* mean;                // [S, N], the padded sequence's; null: the centre is causal

  using State = double;
  __device__ std::int64_t at(const ChainPlace& place) const {
    return place.sequence * starts.columns + place.column;
  }
  __device__ double value(const ChainPlace& place, std::int64_t t) const {
    return as_double(x[t * starts.columns + place.column]);
  }
  __device__ State begin(const ChainPlace& place) const { return carried ? carried[at(place)] : 0; }
  __device__ void mark(State sum, const ChainPlace& place, std::int64_t step) const {
    starts.note(place, step, sum);
  }
  __device__ void step(State& sum, const ChainPlace&, std::int64_t, double value) const {
    sum += value;
  }
  __device__ void finish(State sum, const ChainPlace& place) const {
    if (carried) carried[at(place)] = sum;
    if (mean) mean[at(place)] = sum / static_cast<double>(padded[place.sequence]);
  }
};

// Norms of the centred features over the padded sequence, [S, N]. Pads are zero vectors, which
// centring turns into -centre.
template <class T>
struct FeatureNorms {
  const T* x;
  std::int64_t dim;
  const double* mean;  // [S, N] or null
  bool causal;         // the centre: then not hurried, since each step divides
  const std::int32_t* padded;
  double* norms;

  struct State {
    double sum, square;
  };
  __device__ std::int64_t at(const ChainPlace& place) const {
    return place.sequence * dim + place.column;
  }
  __device__ double value(const ChainPlace& place, std::int64_t t) const {
    return as_double(x[t * dim + place.column]) - (mean ? mean[at(place)] : 0.0);
  }
  __device__ State begin(const ChainPlace&) const { return {}; }
  __device__ void mark(const State&, const ChainPlace&, std::int64_t) const {}
  __device__ void step(State& state, const ChainPlace& place, std::int64_t t, double value) const {
    double centred = value;
    if (causal) {
      state.sum += value;
      centred -= state.sum / static_cast<double>(t - place.begin + 1);
    }
    state.square = fma(centred, centred, state.square);
  }
  __device__ void finish(const State& state, const ChainPlace& place) const {
    double pads = 0;
    for (std::int64_t t = place.end - place.begin; t < padded[place.sequence]; ++t) {
      double centre = mean ? mean[at(place)] : 0.0;
      if (causal) centre = state.sum / static_cast<double>(t + 1);
      pads = fma(centre, centre, pads);
    }
    norms[at(place)] = sqrt(state.square + pads);
  }
};

// weights [S, N, h]: the hash matrix, row f divided by the norm of feature f.
template <class T>
__global__ void divide_kernel(const T* hash, const double* norms, std::int64_t dim,
                              std::int64_t columns, std::int64_t count, double* weights) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const double norm = norms[i / columns];
    weights[i] = as_double(hash[i % (dim * columns)]) / (norm > 1e-12 ? norm : 1e-12);
  }
}

// The best of some columns for a token, or their bits.
struct Found {
  double projection;
  std::int64_t bin;  // argmax: -1 before the first column
};
__device__ void take(Found& found, LshRule rule, std::int64_t column, double projection) {
  if (rule == LshRule::sign_bits) {
    found.bin |= projection > 0 ? std::int64_t{1} << column : 0;
  } else if (found.bin < 0 || projection > found.projection ||
             (projection == found.projection && column < found.bin)) {
    found = {projection, column};
  }
}

struct Centre {
  const double* starts;         // [places, N]: causal
  const double* mean;           // [S, N]: of the sequence; both null: none
  const std::int64_t* carried;  // [S] rows before; null: none
};

// A block takes a piece of a sequence: features are centred once, then each warp projects them on
// its columns. weights: the hash matrix, or one for each sequence `stride` numbers apart.
template <class T, class W>
__global__ void __launch_bounds__(kWarps* kWarp)
    bins_kernel(cuda::Pieces pieces, const T* x, std::int64_t dim, const W* weights,
                std::int64_t stride, std::int64_t columns, LshRule rule, Centre centre,
                std::int64_t* bins, double* far) {
  HAX_SHARED(founds, Found[kWarps][kWarp]);
  const cuda::Piece piece = pieces.at(blockIdx.x);
  if (piece.begin == piece.end) return;  // the whole block
  const std::int64_t s = piece.sequence;
  const int rows = static_cast<int>(piece.end - piece.begin), width = static_cast<int>(dim);
  double* features = cuda::table_of(far, dim);
  if (centre.starts) {
    cuda::sums_of_piece(x, dim, piece, centre.starts + std::int64_t{blockIdx.x} * dim, features);
  }
  const std::int64_t before = rows_before(centre.carried, s) + piece.begin - pieces.offsets[s] + 1;
  for (int i = static_cast<int>(threadIdx.x); i < rows * width; i += kWarps * kWarp) {
    const int row = i / width, f = i % width;
    double& at = features[f * kSumPitch + row];
    double middle = 0;
    // Divided, not multiplied by 1 / count: equal float32 rows then centre to exactly zero.
    if (centre.starts) middle = at / static_cast<double>(before + row);
    if (centre.mean) middle = centre.mean[s * dim + f];
    at = as_double(x[piece.begin * dim + i]) - middle;
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const W* weight = weights + s * stride;
  Found found{0, rule == LshRule::sign_bits ? 0 : -1};
  for (std::int64_t c = warp; lane < rows && c < columns; c += kWarps) {
    double sum = features[lane] * as_double(weight[c]);
    for (std::int64_t f = 1; f < dim; ++f) {
      sum = fma(features[f * kSumPitch + lane], as_double(weight[f * columns + c]), sum);
    }
    take(found, rule, c, sum);
  }
  founds[warp][lane] = found;
  __syncthreads();
  if (warp != 0 || lane >= rows) return;
  for (int w = 1; w < kWarps; ++w) {
    const Found other = founds[w][lane];
    if (rule == LshRule::sign_bits) {
      found.bin |= other.bin;
    } else if (other.bin >= 0) {
      take(found, rule, other.bin, other.projection);
    }
  }
  bins[piece.begin + lane] = found.bin;
}

Tensor doubles(const Shape& shape) { return Tensor::empty(shape, DType::float64, kCuda); }

}  // namespace

void hash_rows(Cuda, const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
               LshCenter center, NormMode norm, CarriedMean* mean, Tensor& bins) {
  const std::int64_t tokens = x.size(0), dim = x.size(1), columns = hash.size(1);
  const std::int64_t count = sequences.count();
  const std::int32_t* offsets = sequences.offsets_on(kCuda).data<std::int32_t>();
  const bool pads = center == LshCenter::sequence || norm == NormMode::released;
  const std::int32_t* padded = pads ? sequences.padded_on(kCuda).data<std::int32_t>() : nullptr;
  const cuda::Pieces pieces{offsets, count, cuda::kSumPiece};
  const std::int64_t places = cuda::piece_places(tokens, count, cuda::kSumPiece);
  cuda::SumTables tables(dim, places);

  Tensor starts, means, norms, weights, carried;
  Centre centre{};
  if (center == LshCenter::causal) {
    starts = doubles({places, dim});
    centre.starts = starts.data<double>();
  } else if (center == LshCenter::sequence) {
    means = doubles({count, dim});
    centre.mean = means.data<double>();
  }
  if (mean) {
    carried = Tensor::from(mean->rows).to(kCuda);
    centre.carried = carried.data<std::int64_t>();
  }
  cuda::visit_storage("lsh_bins", x.dtype(), [&]<class T>() {
    if (center != LshCenter::none) {
      cuda::run_chains(offsets, count, dim,
                       CentreSums<T>{x.data<T>(),
                                     {starts.defined() ? starts.data<double>() : nullptr, dim},
                                     mean ? mean->sum.data<double>() : nullptr,
                                     padded,
                                     means.defined() ? means.data<double>() : nullptr});
    }
    const auto project = [&]<class W>(const W* matrix, std::int64_t stride) {
      cuda::launch(bins_kernel<T, W>,
                   {cuda::blocks(places), unsigned{kWarps * kWarp}, tables.shared_bytes()}, pieces,
                   x.data<T>(), dim, matrix, stride, columns, rule, centre,
                   bins.data<std::int64_t>(), tables.far());
    };
    if (norm == NormMode::causal) {
      project(hash.data<T>(), 0);
      return;
    }
    norms = doubles({count, dim});
    weights = doubles({count, dim, columns});
    cuda::run_chains(offsets, count, dim,
                     FeatureNorms<T>{x.data<T>(), dim, centre.mean, center == LshCenter::causal,
                                     padded, norms.data<double>()});
    cuda::launch(divide_kernel<T>, {cuda::blocks_for(weights.numel(), 256), 256}, hash.data<T>(),
                 norms.data<double>(), dim, columns, weights.numel(), weights.data<double>());
    project(weights.data<double>(), dim * columns);
  });
  if (!mean) return;
  for (std::int64_t s = 0; s < count; ++s) {
    mean->rows[static_cast<std::size_t>(s)] += sequences.length(s);
  }
}

}  // namespace hax
