// Medians of repeated runs, of pairs of runs, and the slope of a line.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <vector>

#include "engine/check.h"

namespace hax::bench {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class F>
double seconds_of(F&& f) {
  const double start = seconds_now();
  f();
  return seconds_now() - start;
}

/// The middle value, or the mean of the two in the middle. Throws Error when there is none.
inline double median(std::vector<double> values) {
  check(!values.empty(), "median of nothing");
  const std::size_t half = values.size() / 2;
  std::ranges::sort(values);
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// Slope of the straight line that fits log y over log x best. Throws Error unless there are two
/// different x, all positive.
inline double log_slope(std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size() && x.size() >= 2, "slope: {} x and {} y, expected at least two",
        x.size(), y.size());
  const auto count = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    check(x[i] > 0 && y[i] > 0, "slope: a point at {}, {}, expected positive numbers", x[i], y[i]);
    mean_x += std::log(x[i]) / count;
    mean_y += std::log(y[i]) / count;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double dx = std::log(x[i]) - mean_x;
    xx += dx * dx;
    xy += dx * (std::log(y[i]) - mean_y);
  }
  check(xx > 0, "slope: all x are equal");
  return xy / xx;
}

struct Timing {
  double median = 0, fastest = 0;
  std::size_t runs = 0;

  explicit Timing(const std::vector<double>& seconds)
      : median(bench::median(seconds)),
        fastest(*std::ranges::min_element(seconds)),
        runs(seconds.size()) {}

  /// Of one of `count` equal things that were timed together.
  Timing operator/(double count) const {
    Timing each = *this;
    each.median /= count;
    each.fastest /= count;
    return each;
  }
};

/// How long to repeat: until both are reached.
struct Effort {
  double seconds = 1;
  std::size_t runs = 3;
  bool warm_up = true;  ///< one run before, that does not count
};

/// Runs f to warm up, then times it again and again.
template <class F>
Timing measure(const Effort& effort, F&& f) {
  if (effort.warm_up) f();
  std::vector<double> seconds;
  const double start = seconds_now();
  while (seconds.size() < effort.runs || seconds_now() - start < effort.seconds) {
    seconds.push_back(seconds_of(f));
  }
  return Timing(seconds);
}

/// Two things in turn, A B A B: what disturbs the machine disturbs both.
struct Pair {
  Timing a, b;
  double ratio;  ///< median over the pairs of a's time / b's time
};

template <class A, class B>
Pair measure_pair(const Effort& effort, A&& a, B&& b) {
  if (effort.warm_up) {
    a();
    b();
  }
  std::vector<double> as, bs, ratios;
  const double start = seconds_now();
  while (as.size() < effort.runs || seconds_now() - start < effort.seconds) {
    as.push_back(seconds_of(a));
    bs.push_back(seconds_of(b));
    ratios.push_back(as.back() / bs.back());
  }
  return {Timing(as), Timing(bs), median(ratios)};
}

}  // namespace hax::bench
