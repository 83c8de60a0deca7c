#include <algorithm>
#include <cmath>
#include <limits>

#include "train/inspection.h"

namespace hax {

NumberStats stats_of(const Tensor& tensor) {
  const Tensor numbers = tensor.to(kCpu).to(DType::float64);
  NumberStats stats;
  stats.count = numbers.numel();
  stats.min = std::numeric_limits<double>::infinity();
  stats.max = -stats.min;
  double sum = 0, square = 0;
  std::int64_t finite = 0;
  for (const double x : numbers.values<double>()) {
    stats.zeros += x == 0 ? 1 : 0;
    stats.nan += std::isnan(x) ? 1 : 0;
    stats.infinite += std::isinf(x) ? 1 : 0;
    if (!std::isfinite(x)) continue;
    ++finite;
    stats.min = std::min(stats.min, x);
    stats.max = std::max(stats.max, x);
    sum += x;
    square += x * x;
  }
  if (finite == 0) {
    stats.min = stats.max = 0;
    return stats;
  }
  stats.mean = sum / static_cast<double>(finite);
  stats.norm = std::sqrt(square);
  double deviation = 0;
  stats.histogram.assign(NumberStats::kHistogramBins, 0);
  const double width = (stats.max - stats.min) / NumberStats::kHistogramBins;
  for (const double x : numbers.values<double>()) {
    if (!std::isfinite(x)) continue;
    deviation += (x - stats.mean) * (x - stats.mean);
    const double bin = width > 0 ? std::floor((x - stats.min) / width) : 0;
    ++stats.histogram[static_cast<std::size_t>(
        std::clamp(bin, 0.0, NumberStats::kHistogramBins - 1.0))];
  }
  stats.std = std::sqrt(deviation / static_cast<double>(finite));
  return stats;
}

}  // namespace hax
