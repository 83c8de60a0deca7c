#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "engine/dispatch.h"
#include "ops/lsh/lsh_kernels.h"

namespace hax {
namespace {

// Tokens hashed together, one per SIMD lane. A lane never looks at its neighbours, so results do
// not depend on where a block begins.
constexpr int kLanes = 16;
using Lanes = std::array<double, kLanes>;

// Subtracts the centre from the tokens of one sequence, in order.
template <class T>
class Centring {
 public:
  Centring(const T* x, std::int64_t length, std::int64_t padded, std::int64_t dim, LshCenter center)
      : x_(x), dim_(dim), center_(center), sum_(static_cast<std::size_t>(dim)) {
    if (center == LshCenter::sequence) {
      for (std::int64_t t = 0; t < length; ++t) add(t);
      count_ = static_cast<double>(padded);
    }
  }

  // Before the first token: `rows` rows of the sequence, `sum` in all, came before (causal only).
  void go_on_from(const double* sum, std::int64_t rows) {
    std::copy_n(sum, sum_.size(), sum_.data());
    rows_before_ = rows;
  }
  const std::vector<double>& sum() const { return sum_; }

  // Lane `lane` of the features := x_t - centre_t. Call with t = 0, 1, 2, ...
  void centre(std::int64_t t, Lanes* features, std::size_t lane) {
    if (center_ == LshCenter::causal) {
      add(t);
      count_ = static_cast<double>(rows_before_ + t + 1);
    }
    const T* row = x_ + t * dim_;
    for (std::size_t f = 0; f < sum_.size(); ++f) {
      // Divided, not multiplied by 1 / count: equal float32 rows then centre to exactly zero.
      features[f][lane] = row[f] - sum_[f] / count_;
    }
  }

  // After the last token: the sum of squares of feature f over the pads length..padded-1, zero
  // vectors that centring turns into -centre.
  double pad_square(std::size_t f, std::int64_t length, std::int64_t padded) const {
    double square = 0;
    for (std::int64_t t = length; t < padded; ++t) {
      const double mean =
          sum_[f] / (center_ == LshCenter::causal ? static_cast<double>(t + 1) : count_);
      square += mean * mean;
    }
    return square;
  }

 private:
  void add(std::int64_t t) {
    for (std::size_t f = 0; f < sum_.size(); ++f)
      sum_[f] += x_[t * dim_ + static_cast<std::int64_t>(f)];
  }

  const T* x_;
  std::int64_t dim_;
  LshCenter center_;
  std::vector<double> sum_;  // the centre is sum / count; without a centre 0 / 1
  double count_ = 1;
  std::int64_t rows_before_ = 0;
};

// Divides row f of the hash matrix by the norm of feature f over the padded sequence: the same
// projections as those of divided features.
template <class T>
void divide_by_norms(Centring<T> centring, std::int64_t length, std::int64_t padded,
                     std::vector<Lanes>& features, std::int64_t columns,
                     std::vector<double>& hash) {
  std::vector<double> square(features.size());
  for (std::int64_t t = 0; t < length; ++t) {
    centring.centre(t, features.data(), 0);
    for (std::size_t f = 0; f < features.size(); ++f) square[f] += features[f][0] * features[f][0];
  }
  for (std::size_t f = 0; f < features.size(); ++f) {
    const double norm = std::sqrt(square[f] + centring.pad_square(f, length, padded));
    for (std::int64_t c = 0; c < columns; ++c) {
      hash[f * static_cast<std::size_t>(columns) + static_cast<std::size_t>(c)] /=
          std::max(norm, 1e-12);
    }
  }
}

void project(const std::vector<Lanes>& features, const double* hash, std::int64_t columns,
             std::int64_t column, Lanes& out) {
  double sum[kLanes];
#pragma omp simd
  for (int b = 0; b < kLanes; ++b) sum[b] = features[0][b] * hash[column];
  for (std::size_t f = 1; f < features.size(); ++f) {
    const double weight = hash[static_cast<std::int64_t>(f) * columns + column];
#pragma omp simd
    for (int b = 0; b < kLanes; ++b) sum[b] += features[f][b] * weight;
  }
#pragma omp simd
  for (int b = 0; b < kLanes; ++b) out[b] = sum[b];
}

std::array<std::int64_t, kLanes> bins_of(const std::vector<Lanes>& features, const double* hash,
                                         std::int64_t columns, LshRule rule) {
  std::array<std::int64_t, kLanes> bins{};
  Lanes projection;
  if (rule == LshRule::sign_bits) {
    for (std::int64_t c = 0; c < columns; ++c) {
      project(features, hash, columns, c, projection);
      const std::int64_t bit = std::int64_t{1} << c;
#pragma omp simd
      for (int b = 0; b < kLanes; ++b) bins[b] |= projection[b] > 0 ? bit : 0;
    }
    return bins;
  }
  Lanes best;
  project(features, hash, columns, 0, best);
  for (std::int64_t c = 1; c < columns; ++c) {
    project(features, hash, columns, c, projection);
#pragma omp simd
    for (int b = 0; b < kLanes; ++b) {
      const bool larger = projection[b] > best[b];
      best[b] = larger ? projection[b] : best[b];
      bins[b] = larger ? c : bins[b];
    }
  }
  return bins;
}

// A stable sort of positions by bin, a byte of the bin a pass: as many passes as the span of the
// bins needs, one for up to 256 neighbouring codes.
class BinSort {
 public:
  void operator()(const std::int64_t* bin, std::int64_t length, std::int32_t* order) {
    if (length == 0) return;
    const auto [low, high] = std::ranges::minmax_element(bin, bin + length);
    const auto lowest = static_cast<std::uint64_t>(*low);
    const std::uint64_t span = static_cast<std::uint64_t>(*high) - lowest;
    other_.resize(static_cast<std::size_t>(length));
    std::int32_t *from = order, *to = other_.data();
    for (std::int64_t p = 0; p < length; ++p) from[p] = static_cast<std::int32_t>(p);
    for (int shift = 0; shift < 64 && (span >> shift) != 0; shift += 8) {
      const auto digit = [&](std::int32_t j) {
        return ((static_cast<std::uint64_t>(bin[j]) - lowest) >> shift) & 255U;
      };
      std::array<std::int64_t, 257> place{};
      for (std::int64_t p = 0; p < length; ++p) ++place[digit(from[p]) + 1];
      for (std::size_t d = 1; d < place.size(); ++d) place[d] += place[d - 1];
      for (std::int64_t p = 0; p < length; ++p) to[place[digit(from[p])]++] = from[p];
      std::swap(from, to);
    }
    if (from != order) std::copy_n(from, length, order);
  }

 private:
  std::vector<std::int32_t> other_;
};

}  // namespace

void hash_rows(Cpu, const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
               LshCenter center, NormMode norm, CarriedMean* mean, Tensor& bins) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t dim = x.size(1), columns = hash.size(1);
    const auto drawn = hash.values<T>();
    std::vector<double> weights(drawn.begin(), drawn.end());
    std::vector<Lanes> features(static_cast<std::size_t>(dim));
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t length = sequences.length(s), padded = sequences.padded(s);
      Centring<T> centring(x.data<T>() + sequences.begin(s) * dim, length, padded, dim, center);
      if (norm == NormMode::released) {
        std::ranges::copy(drawn, weights.begin());
        divide_by_norms(centring, length, padded, features, columns, weights);
      }
      if (mean != nullptr) {
        centring.go_on_from(mean->sum.data<double>() + s * dim,
                            mean->rows[static_cast<std::size_t>(s)]);
      }
      std::int64_t* out = bins.data<std::int64_t>() + sequences.begin(s);
      for (std::int64_t first = 0; first < length; first += kLanes) {
        const auto lanes = static_cast<std::size_t>(std::min<std::int64_t>(kLanes, length - first));
        for (std::size_t b = 0; b < lanes; ++b) {
          centring.centre(first + static_cast<std::int64_t>(b), features.data(), b);
        }
        const auto found = bins_of(features, weights.data(), columns, rule);
        std::copy_n(found.begin(), lanes, out + first);
      }
      if (mean != nullptr) {
        std::ranges::copy(centring.sum(), mean->sum.data<double>() + s * dim);
        mean->rows[static_cast<std::size_t>(s)] += length;
      }
    }
  });
}

void band_of_bins(Cpu, const Tensor& key_bin, const Sequences& sequences, std::int64_t keys,
                  Tensor& death, Tensor& expire, Tensor& order) {
  BinSort sort;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s), length = sequences.length(s);
    const std::int64_t* bin = key_bin.data<std::int64_t>() + begin;
    std::int32_t* sorted = order.data<std::int32_t>() + begin;
    std::int32_t* dies = death.data<std::int32_t>() + begin;
    std::int32_t* expires = expire.data<std::int32_t>() + begin;
    for (std::int64_t j = 0; j < length; ++j) dies[j] = static_cast<std::int32_t>(j);
    sort(bin, length, sorted);
    for (std::int64_t p = 0; p < length; ++p) {
      const bool crowded_out = keys < length - p && bin[sorted[p + keys]] == bin[sorted[p]];
      expires[sorted[p]] = crowded_out ? sorted[p + keys] : KeySet::kForever;
    }
  }
}

}  // namespace hax
