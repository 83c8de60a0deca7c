#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "engine/dispatch.h"
#include "train/optimizer_kernels.h"

namespace hax {

AdamW::AdamW(const ParamTable& table, AdamWOptions options, Device device)
    : options_(options), m_(table, DType::float32, device), v_(table, DType::float32, device) {}

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

  const AdamWFactors factors{b1, b2, rest1, rest2, rate, root, eps, keep};
  on_device(parameters.device(), [&](auto device) {
    adamw_update(device, factors, gradients.flat(), parameters.flat(), m_.flat(), v_.flat());
  });
}

double warmup_rate(double lr, std::int64_t step, std::int64_t warmup) {
  if (step >= warmup) return lr;
  return lr * static_cast<double>(step) / static_cast<double>(warmup);
}

double global_norm(const Parameters& gradients) {
  double square = 0;
  on_device(gradients.device(),
            [&](auto device) { square = square_sum(device, gradients.flat()); });
  return std::sqrt(square);
}

void clip(Parameters& gradients, double norm, double limit) {
  if (!(norm > limit)) return;
  const auto factor = static_cast<float>(limit / norm);
  on_device(gradients.device(), [&](auto device) { scale_all(device, gradients.flat(), factor); });
}

}  // namespace hax
