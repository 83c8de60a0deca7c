#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/dispatch.h"
#include "ops/running_sum/running_sum_kernels.h"

namespace hax {
namespace {

constexpr double kSmallestNorm = 1e-12;

// Row s of [S, dim], or zeros where `all` is null.
void load_sums(const double* all, std::int64_t s, std::vector<double>& to) {
  if (all == nullptr) {
    std::ranges::fill(to, 0.0);
  } else {
    std::copy_n(all + s * static_cast<std::int64_t>(to.size()), to.size(), to.data());
  }
}
void store_sums(const std::vector<double>& from, std::int64_t s, double* all) {
  std::ranges::copy(from, all + s * static_cast<std::int64_t>(from.size()));
}

// Calls visit(t, sums) for the tokens of one sequence, sums [dim] += x_begin + ... + x_t.
template <class T, class Visit>
void for_each_sum(const T* x, std::int64_t begin, std::int64_t end, std::vector<double>& sums,
                  Visit visit) {
  const auto dim = static_cast<std::int64_t>(sums.size());
  double* s = sums.data();
  for (std::int64_t t = begin; t < end; ++t) {
    const T* row = x + t * dim;
#pragma omp simd
    for (std::int64_t f = 0; f < dim; ++f) s[f] += static_cast<double>(row[f]);
    visit(t, s);
  }
}

// dx_p = sums + sum over t >= p of d loss / d s_t, which add(t, ds) adds to ds = sums [dim], last
// token first.
template <class T, class Add>
void accumulate_back(std::int64_t begin, std::int64_t end, std::vector<double>& sums, T* dx,
                     Add add) {
  const auto dim = static_cast<std::int64_t>(sums.size());
  double* s = sums.data();
  for (std::int64_t t = end - 1; t >= begin; --t) {
    add(t, s);
    T* row = dx + t * dim;
#pragma omp simd
    for (std::int64_t f = 0; f < dim; ++f) row[f] = static_cast<T>(s[f]);
  }
}

}  // namespace

void running_sum_forward(Cpu, const Tensor& x, const Tensor& initial, const Sequences& sequences,
                         NormMode mode, Tensor& y, Tensor& norms, Tensor& final_sum) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t dim = x.size(1);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const double* start = initial.defined() ? initial.data<double>() : nullptr;
    double *norm = norms.data<double>(), *last = final_sum.data<double>();
    std::vector<double> sums(dim);

    const auto causal = [&](std::int64_t begin, std::int64_t end) {
      for_each_sum(in, begin, end, sums, [=](std::int64_t t, const double* s) {
        double square = 0;
        for (std::int64_t f = 0; f < dim; ++f) square += s[f] * s[f];
        const double n = std::max(std::sqrt(square), kSmallestNorm);
        norm[t] = n;
        T* row = out + t * dim;
#pragma omp simd
        for (std::int64_t f = 0; f < dim; ++f) row[f] = static_cast<T>(s[f] / n);
      });
    };
    // Twice over x: the norms need the whole sequence, and keeping the sums would need it in
    // double.
    const auto released = [&](std::int64_t begin, std::int64_t end, std::int64_t padding,
                              double* n) {
      std::fill_n(n, dim, 0.0);
      for_each_sum(in, begin, end, sums, [=](std::int64_t t, const double* s) {
        const double times = t == end - 1 ? 1.0 + static_cast<double>(padding) : 1.0;
#pragma omp simd
        for (std::int64_t f = 0; f < dim; ++f) n[f] += times * s[f] * s[f];
      });
      for (std::int64_t f = 0; f < dim; ++f) n[f] = std::max(std::sqrt(n[f]), kSmallestNorm);
      std::ranges::fill(sums, 0.0);
      for_each_sum(in, begin, end, sums, [=](std::int64_t t, const double* s) {
        T* row = out + t * dim;
#pragma omp simd
        for (std::int64_t f = 0; f < dim; ++f) row[f] = static_cast<T>(s[f] / n[f]);
      });
    };

    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
      load_sums(start, s, sums);
      if (mode == NormMode::causal) {
        causal(begin, end);
      } else {
        released(begin, end, sequences.padded(s) - sequences.length(s), norm + s * dim);
      }
      store_sums(sums, s, last);
    }
  });
}

void running_sum_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const Tensor& y,
                          const Tensor& norms, const Sequences& sequences, NormMode mode,
                          Tensor& dx, Tensor& dinitial) {
  visit_float(y.dtype(), [&]<class T>() {
    const std::int64_t dim = y.size(1);
    const T *out = y.data<T>(), *dout = dy.defined() ? dy.data<T>() : nullptr;
    T* din = dx.data<T>();
    const double *norm = norms.data<double>(),
                 *dlast = dfinal.defined() ? dfinal.data<double>() : nullptr;
    double* dstart = dinitial.defined() ? dinitial.data<double>() : nullptr;
    std::vector<double> sums(dim), dots(dim);

    const auto causal = [&](std::int64_t begin, std::int64_t end) {
      accumulate_back(begin, end, sums, din, [=](std::int64_t t, double* ds) {
        const T *row = out + t * dim, *drow = dout + t * dim;
        double dot = 0;
        if (norm[t] > kSmallestNorm) {
          for (std::int64_t f = 0; f < dim; ++f) {
            dot += static_cast<double>(row[f]) * static_cast<double>(drow[f]);
          }
        }
        const double n = norm[t];
#pragma omp simd
        for (std::int64_t f = 0; f < dim; ++f) {
          ds[f] += (static_cast<double>(drow[f]) - static_cast<double>(row[f]) * dot) / n;
        }
      });
    };
    const auto released = [&](std::int64_t begin, std::int64_t end, std::int64_t padding,
                              const double* n) {
      std::ranges::fill(dots, 0.0);
      double* dot = dots.data();
      for (std::int64_t i = begin * dim; i < end * dim; i += dim) {
#pragma omp simd
        for (std::int64_t f = 0; f < dim; ++f) {
          dot[f] += static_cast<double>(out[i + f]) * static_cast<double>(dout[i + f]);
        }
      }
      for (std::int64_t f = 0; f < dim; ++f) {
        if (n[f] <= kSmallestNorm) dot[f] = 0;
      }
      accumulate_back(begin, end, sums, din, [=](std::int64_t t, double* ds) {
        const T *row = out + t * dim, *drow = dout + t * dim;
        const double times = t == end - 1 ? 1.0 + static_cast<double>(padding) : 1.0;
#pragma omp simd
        for (std::int64_t f = 0; f < dim; ++f) {
          const double along = times * static_cast<double>(row[f]) * dot[f];
          ds[f] += (static_cast<double>(drow[f]) - along) / n[f];
        }
      });
    };

    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
      load_sums(dlast, s, sums);
      if (dout == nullptr) {
        accumulate_back(begin, end, sums, din, [](std::int64_t, const double*) {});
      } else if (mode == NormMode::causal) {
        causal(begin, end);
      } else {
        released(begin, end, sequences.padded(s) - sequences.length(s), norm + s * dim);
      }
      if (dstart != nullptr) store_sums(sums, s, dstart);
    }
  });
}

}  // namespace hax
