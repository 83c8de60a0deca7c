#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"
#include "ops/vector_math.h"

namespace hax {
namespace {

void check_label(const char* op, std::int64_t row, std::int32_t label, std::int64_t classes) {
  check(label < classes, "{}: labels[{}] is {}, the logits have {} columns", op, row, label,
        classes);
}

template <class T>
T largest(const T* x, std::int64_t count) {
  T best = x[0];
#pragma omp simd reduction(max : best)
  for (std::int64_t v = 0; v < count; ++v) best = x[v] > best ? x[v] : best;
  return best;
}

// How many logits beat the label's: greater, or equal and earlier. A NaN on either side counts.
template <class T>
std::int64_t beaten_by(const T* x, std::int64_t count, std::int64_t label) {
  const T mine = x[label];
  std::int32_t before = 0, after = 0;
#pragma omp simd reduction(+ : before)
  for (std::int64_t v = 0; v < label; ++v) before += !(x[v] < mine);
#pragma omp simd reduction(+ : after)
  for (std::int64_t v = label + 1; v < count; ++v) after += !(x[v] <= mine);
  return std::int64_t{before} + after;
}

}  // namespace

void cross_entropy_forward(Cpu, const Tensor& logits, const Tensor& labels, double divisor,
                           Tensor& loss, Tensor& peak, Tensor& rsum) {
  visit_float(logits.dtype(), [&]<class T>() {
    const std::int64_t rows = logits.size(0), classes = logits.size(1);
    const std::int32_t* label = labels.data<std::int32_t>();
    const T* all = logits.data<T>();
    T *peaks = peak.data<T>(), *rsums = rsum.data<T>();
    Tensor totals = Tensor::empty({1}, DType::float64);
    sum_of_pieces(rows, totals, [&](std::int64_t begin, std::int64_t end, Tensor& part) {
      double& total = *part.data<double>();
      for (std::int64_t r = begin; r < end; ++r) {
        if (label[r] < 0) continue;
        check_label("cross_entropy", r, label[r], classes);
        const T* x = all + r * classes;
        const T top = largest(x, classes);
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t v = 0; v < classes; ++v) sum += fast_exp(x[v] - top);
        peaks[r] = top;
        rsums[r] = 1 / sum;
        // The difference before the sum: log(sum) is small where top may be large.
        total += static_cast<double>(std::log(sum)) + static_cast<double>(top - x[label[r]]);
      }
    });
    *loss.data<T>() = static_cast<T>(*totals.data<double>() / divisor);
  });
}

void cross_entropy_backward(Cpu, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            const Tensor& peak, const Tensor& rsum, double divisor,
                            Tensor& dlogits) {
  visit_float(logits.dtype(), [&]<class T>() {
    const std::int64_t rows = logits.size(0), classes = logits.size(1);
    const std::int32_t* label = labels.data<std::int32_t>();
    const T factor = static_cast<T>(static_cast<double>(*dloss.data<T>()) / divisor);
    const T *all = logits.data<T>(), *peaks = peak.data<T>(), *rsums = rsum.data<T>();
    T* dall = dlogits.data<T>();
    parallel_rows(rows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        T* dx = dall + r * classes;
        if (label[r] < 0) {
          std::fill(dx, dx + classes, T{0});
          continue;
        }
        const T* x = all + r * classes;
        const T top = peaks[r], scale = factor * rsums[r];
#pragma omp simd
        for (std::int64_t v = 0; v < classes; ++v) dx[v] = fast_exp(x[v] - top) * scale;
        dx[label[r]] -= factor;
      }
    });
  });
}

void sample_accuracy(Cpu, const Tensor& logits, const Tensor& labels, const Sequences& samples,
                     Tensor& accuracy) {
  visit_float(logits.dtype(), [&]<class T>() {
    const std::int64_t classes = logits.size(1);
    const std::int32_t* label = labels.data<std::int32_t>();
    const T* all = logits.data<T>();
    double* share = accuracy.data<double>();
    for (std::int64_t s = 0; s < samples.count(); ++s) {
      std::int64_t asked = 0, right = 0;
      for (std::int64_t r = samples.begin(s); r < samples.end(s); ++r) {
        if (label[r] < 0) continue;
        check_label("sample_accuracy", r, label[r], classes);
        ++asked;
        right += beaten_by(all + r * classes, classes, label[r]) == 0;
      }
      share[s] = asked == 0 ? std::numeric_limits<double>::quiet_NaN()
                            : static_cast<double>(right) / static_cast<double>(asked);
    }
  });
}

}  // namespace hax
