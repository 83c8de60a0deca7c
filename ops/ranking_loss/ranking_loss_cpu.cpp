#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "engine/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/ranking_loss/ranking_loss_kernels.h"
#include "ops/vector_math.h"

namespace hax {
namespace {

constexpr std::int64_t kTileRows = 256;  // queries whose scores are held at a time

// sigma(x), given e = exp(-|x|): no exponential of a positive number.
template <class T>
T sigmoid(T x, T e) {
  return (x >= 0 ? T{1} : e) / (1 + e);
}

// log(1 + e) for e in [0, 1], as a branch-free series for float: log(1 + e) = 2 artanh(s) with
// s = e / (2 + e) <= 1/3, and artanh(s) = s + s^3/3 + s^5/5 + ... What is left out is below 2e-9
// of the value.
template <class T>
T log1p_unit(T e) {
  if constexpr (std::is_same_v<T, float>) {
    const float s = e / (2 + e), s2 = s * s;
    float p = 1.0F / 15;
    p = p * s2 + 1.0F / 13;
    p = p * s2 + 1.0F / 11;
    p = p * s2 + 1.0F / 9;
    p = p * s2 + 1.0F / 7;
    p = p * s2 + 1.0F / 5;
    p = p * s2 + 1.0F / 3;
    return 2 * (s + s * s2 * p);
  } else {
    return std::log1p(e);
  }
}

// Adds sigma(Q_i . K_j) to sum_j for the queries first..first+rows that see position j.
template <class T>
void add_visible(const Tensor& dots, std::int64_t first, const std::int32_t* position,
                 double* sum) {
  const std::int64_t rows = dots.size(0), count = dots.size(1);
  const T* dot = dots.data<T>();
  for (std::int64_t r = 0; r < rows; ++r, dot += count) {
    const auto query = static_cast<std::int32_t>(first + r);
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) {
      // A query that does not see the key has sigma(-inf) = 0. Selecting the argument and not the
      // result keeps the loop free of branches.
      const T all = dot[c], x = position[c] <= query ? all : -std::numeric_limits<T>::infinity();
      sum[c] += static_cast<double>(sigmoid(x, fast_exp(-std::abs(x))));
    }
  }
}

// Loss of candidate a against those after it; adds d loss / d score to `slope`.
template <class T>
T compare_with_later(const T* score, const T* target, std::int64_t a, std::int64_t count,
                     T* slope) {
  T loss = 0, slope_a = 0;
#pragma omp simd reduction(+ : loss, slope_a)
  for (std::int64_t b = a + 1; b < count; ++b) {
    const T x = score[a] - score[b], e = fast_exp(-std::abs(x));
    const T win = target[a] > target[b] ? T{1} : T{0};
    const T want = target[a] == target[b] ? T{0.5} : win;
    loss += (x > 0 ? x : T{0}) - x * want + log1p_unit(e);
    const T excess = sigmoid(x, e) - want;
    slope_a += excess;
    slope[b] -= excess;
  }
  slope[a] += slope_a;
  return loss;
}

}  // namespace

void ranking_target(Cpu, const Tensor& Q, const Tensor& K, const Tensor& candidates,
                    const Sequences& groups, const Sequences& sequences, Tensor& target) {
  visit_float(Q.dtype(), [&]<class T>() {
    const std::int64_t dim = Q.size(1);
    const T* keys = K.data<T>();
    std::vector<double> sum;
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t count = groups.length(s), len = sequences.length(s);
      if (count == 0) continue;
      const std::int32_t* position = candidates.data<std::int32_t>() + groups.begin(s);

      Tensor picked = Tensor::empty({count, dim}, K.dtype());
      T* picked_keys = picked.data<T>();
      sum.assign(static_cast<std::size_t>(count), 0.0);
      for (std::int64_t c = 0; c < count; ++c) {
        const std::int64_t j = position[c], padded = sequences.padded(s);
        check(0 <= j && j < padded,
              "ranking_target: candidates[{}] is {}, sequence {} has positions 0..{}",
              groups.begin(s) + c, j, s, padded - 1);
        T* key = picked_keys + c * dim;
        if (j < len) {
          const T* from = keys + (sequences.begin(s) + j) * dim;
          std::copy(from, from + dim, key);
        } else {
          std::fill(key, key + dim, T{0});
        }
        // Padded queries are zero vectors: sigma(0) each.
        sum[static_cast<std::size_t>(c)] = 0.5 * static_cast<double>(padded - std::max(j, len));
      }

      Tensor dots = Tensor::empty({kTileRows, count}, Q.dtype());
      const std::int64_t earliest = *std::min_element(position, position + count);
      for (std::int64_t first = earliest; first < len; first += kTileRows) {
        const std::int64_t rows = std::min(kTileRows, len - first);
        const std::int64_t begin = sequences.begin(s) + first;
        Tensor tile = dots.rows(0, rows);
        gemm(Cpu{}, Q.rows(begin, begin + rows), false, picked, true, false, tile);
        add_visible<T>(tile, first, position, sum.data());
      }
      std::transform(sum.begin(), sum.end(), target.data<T>() + groups.begin(s),
                     [](double value) { return static_cast<T>(value); });
    }
  });
}

void ranking_loss_forward(Cpu, const Tensor& score, const Tensor& target, const Sequences& groups,
                          double divisor, Tensor& loss, Tensor& slope) {
  visit_float(score.dtype(), [&]<class T>() {
    fill(slope, 0);
    const T *scores = score.data<T>(), *targets = target.data<T>();
    T* slopes = slope.data<T>();
    double total = 0;
    for (std::int64_t s = 0; s < groups.count(); ++s) {
      const std::int64_t begin = groups.begin(s), count = groups.length(s);
      if (count == 0) continue;
      T* group_slope = slopes + begin;
      double half = 0;  // over a < b; the pair (b, a) has the same loss
      for (std::int64_t a = 0; a < count; ++a) {
        half += static_cast<double>(
            compare_with_later(scores + begin, targets + begin, a, count, group_slope));
      }
      const double size = static_cast<double>(count), pairs = size * size;
      total += (2 * half + size * std::numbers::ln2) / pairs;
      const T factor = static_cast<T>(2 / (pairs * divisor));
      for (std::int64_t c = 0; c < count; ++c) group_slope[c] *= factor;
    }
    *loss.data<T>() = static_cast<T>(total / divisor);
  });
}

void ranking_loss_backward(Cpu, const Tensor& dloss, const Tensor& slope, Tensor& dscore) {
  visit_float(slope.dtype(), [&]<class T>() {
    const T factor = *dloss.data<T>();
    const T* from = slope.data<T>();
    T* to = dscore.data<T>();
    for (std::int64_t c = 0; c < slope.numel(); ++c) to[c] = factor * from[c];
  });
}

}  // namespace hax
