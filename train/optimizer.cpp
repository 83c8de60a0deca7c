#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace hax {

AdamW::AdamW(const ParamTable& table, AdamWOptions options)
    : options_(options), m_(table), v_(table) {}

void AdamW::update(std::int64_t step, double lr, const Parameters& gradients,
                   Parameters& parameters) {
  const auto t = static_cast<double>(step);
  const auto b1 = static_cast<float>(options_.beta1), b2 = static_cast<float>(options_.beta2);
  const auto rest1 = static_cast<float>(1 - options_.beta1);
  const auto rest2 = static_cast<float>(1 - options_.beta2);
  // lr m_hat / (sqrt(v_hat) + eps), with both bias corrections moved into two scalars.
  const auto rate = static_cast<float>(lr / (1 - std::pow(options_.beta1, t)));
  const auto root = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t)));
  const auto eps = static_cast<float>(options_.eps);
  const auto keep = static_cast<float>(1 - lr * options_.weight_decay);

  const float* g = gradients.flat().data<float>();
  float* p = parameters.flat().data<float>();
  float* m = m_.flat().data<float>();
  float* v = v_.flat().data<float>();
  const std::int64_t count = parameters.flat().numel();
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    m[i] = b1 * m[i] + rest1 * g[i];
    v[i] = b2 * v[i] + rest2 * g[i] * g[i];
    p[i] = p[i] * keep - rate * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

double warmup_rate(double lr, std::int64_t step, std::int64_t warmup) {
  if (step >= warmup) return lr;
  return lr * static_cast<double>(step) / static_cast<double>(warmup);
}

double global_norm(const Parameters& gradients) {
  double square = 0;
  for (const float g : gradients.flat().values<float>()) square += static_cast<double>(g) * g;
  return std::sqrt(square);
}

void clip(Parameters& gradients, double norm, double limit) {
  if (!(norm > limit)) return;
  const auto factor = static_cast<float>(limit / norm);
  float* g = gradients.flat().data<float>();
  for (std::int64_t i = 0; i < gradients.flat().numel(); ++i) g[i] *= factor;
}

}  // namespace hax
