#include <cmath>
#include <vector>

#include "engine/dispatch.h"
#include "ops/rotary/rotary_kernels.h"

namespace hax {
namespace {

// Cosines and sines of position * frequency_k. A position is 64 block + place: the two turns are
// looked up and put together by one complex product, all in float64. So a position has the same
// angle in every call, and sines are computed for a few positions only.
class Angles {
 public:
  Angles(std::int64_t half, double theta)
      : half_(half), frequency_(half), places_(kPlaces), block_(half), cos_(half), sin_(half) {
    for (std::int64_t k = 0; k < half; ++k) {
      frequency_[k] = std::pow(theta, -static_cast<double>(k) / static_cast<double>(half));
    }
  }

  void move_to(std::int64_t position) {
    if (position / kPlaces != block_index_) {
      block_index_ = position / kPlaces;
      fill(static_cast<double>(block_index_ * kPlaces), block_);
    }
    std::vector<Turn>& place = places_[position % kPlaces];
    if (place.empty() && half_ > 0) {
      place.resize(half_);
      fill(static_cast<double>(position % kPlaces), place);
    }
    for (std::int64_t k = 0; k < half_; ++k) {
      cos_[k] = block_[k].cos * place[k].cos - block_[k].sin * place[k].sin;
      sin_[k] = block_[k].sin * place[k].cos + block_[k].cos * place[k].sin;
    }
  }
  const double* cos() const { return cos_.data(); }
  const double* sin() const { return sin_.data(); }

 private:
  static constexpr std::int64_t kPlaces = 64;
  struct Turn {
    double cos, sin;
  };

  void fill(double position, std::vector<Turn>& turns) const {
    for (std::int64_t k = 0; k < half_; ++k) {
      turns[k] = {std::cos(position * frequency_[k]), std::sin(position * frequency_[k])};
    }
  }

  std::int64_t half_, block_index_ = -1;
  std::vector<double> frequency_;
  std::vector<std::vector<Turn>> places_;  // filled when first needed
  std::vector<Turn> block_;
  std::vector<double> cos_, sin_;
};

}  // namespace

void rotary_turn(Cpu, const Tensor& x, const Sequences& sequences, const RotaryOptions& options,
                 bool back, Tensor& y) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t channels = x.size(1), half = channels / options.heads / 2;
    const std::int32_t* rows = options.rows.defined() ? options.rows.data<std::int32_t>() : nullptr;
    Angles angles(half, options.theta);
    std::vector<T> cosines(half), sines(half);
    T *c = cosines.data(), *s = sines.data();
    const T* in = x.data<T>();
    T* out = y.data<T>();
    std::int64_t sequence = 0;
    for (std::int64_t r = 0; r < x.size(0); ++r, in += channels, out += channels) {
      const std::int64_t token = rows == nullptr ? r : rows[r];
      while (token >= sequences.end(sequence)) ++sequence;
      const std::int64_t first = options.first.empty() ? 0 : options.first[sequence];
      angles.move_to(first + token - sequences.begin(sequence));
      for (std::int64_t k = 0; k < half; ++k) {
        c[k] = static_cast<T>(angles.cos()[k]);
        s[k] = static_cast<T>(back ? -angles.sin()[k] : angles.sin()[k]);
      }
      for (std::int64_t h = 0; h < channels; h += 2 * half) {
        const T *low = in + h, *high = low + half;
        T *to_low = out + h, *to_high = to_low + half;
#pragma omp simd
        for (std::int64_t k = 0; k < half; ++k) {
          to_low[k] = low[k] * c[k] - high[k] * s[k];
          to_high[k] = high[k] * c[k] + low[k] * s[k];
        }
      }
    }
  });
}

}  // namespace hax
