#include "tools/prove_theory.h"

#include <algorithm>
#include <cmath>

namespace hax {
namespace {

// Bits that an answer which is wrong with probability `error` tells at least about its value: 0 at
// 1 - 1 / values, log2(values) at 0, convex between.
double bits_told(double error, double values) {
  const auto part = [](double p) { return p > 0 ? p * std::log2(p) : 0; };
  return std::log2(values) + part(error) + part(1 - error) - error * std::log2(values - 1);
}

}  // namespace

double growth(std::int64_t n) {
  const double bits = std::log2(static_cast<double>(n));
  return static_cast<double>(n) * bits * bits;
}

double fitted_exponent(const std::vector<double>& x, const std::vector<double>& y) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  const auto count = static_cast<double>(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    mean_x += std::log(x[i]) / count;
    mean_y += std::log(y[i]) / count;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (std::log(x[i]) - mean_x) * (std::log(x[i]) - mean_x);
    xy += (std::log(x[i]) - mean_x) * (std::log(y[i]) - mean_y);
  }
  return xy / xx;
}

double most_accurate(double bits, double values) {
  if (bits >= std::log2(values)) return 1;
  double low = 0, high = 1 - 1 / values;  // of the error; bits_told falls between them
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (bits_told(middle, values) > bits ? low : high) = middle;
  }
  return 1 - high;
}

double all_right_bits(double state_bits, double entries, double values) {
  return std::min(0.0, state_bits - entries * std::log2(values));
}

}  // namespace hax
