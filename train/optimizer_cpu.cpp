#include <cmath>

#include "train/optimizer_kernels.h"

namespace hax {

void adamw_update(Cpu, const AdamWFactors& f, const Tensor& gradients, Tensor& parameters,
                  Tensor& first, Tensor& second) {
  const float* g = gradients.data<float>();
  float* p = parameters.data<float>();
  float* m = first.data<float>();
  float* v = second.data<float>();
  const std::int64_t count = parameters.numel();
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    m[i] = f.b1 * m[i] + f.rest1 * g[i];
    v[i] = f.b2 * v[i] + f.rest2 * g[i] * g[i];
    p[i] = p[i] * f.keep - f.rate * m[i] / (std::sqrt(v[i]) * f.root + f.eps);
  }
}

double square_sum(Cpu, const Tensor& x) {
  double total = 0;
  for (const float value : x.values<float>()) total += static_cast<double>(value) * value;
  return total;
}

}  // namespace hax
