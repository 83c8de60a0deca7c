#include <algorithm>
#include <numbers>
#include <vector>

#include "engine/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/ranking_loss/ranking_loss_kernels.h"
#include "ops/vector_math.h"

namespace hax {
namespace {

constexpr std::int64_t kTileRows = 256;  // queries whose scores are held at a time

// Adds sigma(Q_i . K_j) to sum_j for the queries first..first+rows that see position j. `dots`
// [rows, count] becomes sigma(dots): one loop over the whole tile, then the choice of pairs.
template <class T>
void add_visible(Tensor& dots, std::int64_t first, const std::int32_t* position, double* sum) {
  const std::int64_t rows = dots.size(0), count = dots.size(1);
  T* weight = dots.data<T>();
#pragma omp simd
  for (std::int64_t i = 0; i < rows * count; ++i) weight[i] = fast_sigmoid(weight[i]);
  for (std::int64_t r = 0; r < rows; ++r, weight += count) {
    const auto query = static_cast<std::int32_t>(first + r);
    // Two loops, because GCC makes a branch of a choice that a conversion follows.
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) {
      const T all = weight[c];
      weight[c] = position[c] <= query ? all : T{0};
    }
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) sum[c] += static_cast<double>(weight[c]);
  }
}

// Loss of candidate a against those after it; adds d loss / d score to `slope`.
template <class T>
T compare_with_later(const T* score, const T* target, std::int64_t a, std::int64_t count,
                     T* slope) {
  T loss = 0, slope_a = 0;
#pragma omp simd reduction(+ : loss, slope_a)
  for (std::int64_t b = a + 1; b < count; ++b) {
    const T x = score[a] - score[b];
    const T win = target[a] > target[b] ? T{1} : T{0};
    const T want = target[a] == target[b] ? T{0.5} : win;
    loss += (x > 0 ? x : T{0}) - x * want + fast_log1p_exp_neg_abs(x);
    const T excess = fast_sigmoid(x) - want;
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
