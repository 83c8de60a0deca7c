#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "engine/dispatch.h"
#include "engine/memory.h"
#include "train/optimizer_kernels.h"

namespace hax {

AdamW::AdamW(const ParamTable& table, AdamWOptions options, Device device)
    : options_(options), m_(table, DType::float32, device), v_(table, DType::float32, device) {
  if (!device.is_cpu()) {
    factors_ = Tensor::empty({std::int64_t{sizeof(AdamWFactors)}}, DType::uint8, device);
  }
}

AdamWFactors AdamW::factors(std::int64_t step, double lr, double limit) const {
  const auto t = static_cast<double>(step);
  // lr m_hat / (sqrt(v_hat) + eps), with both bias corrections moved into two scalars.
  return {.b1 = static_cast<float>(options_.beta1),
          .b2 = static_cast<float>(options_.beta2),
          .rest1 = static_cast<float>(1 - options_.beta1),
          .rest2 = static_cast<float>(1 - options_.beta2),
          .rate = static_cast<float>(lr / (1 - std::pow(options_.beta1, t))),
          .root = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t))),
          .eps = static_cast<float>(options_.eps),
          .keep = static_cast<float>(1 - lr * options_.weight_decay),
          .limit = limit};
}

void AdamW::update(std::int64_t step, double lr, const Parameters& gradients,
                   Parameters& parameters) {
  if (!parameters.device().is_cpu()) {
    StepSums sums(parameters.device());
    set_factors(step, lr, 0);
    return queue_update(gradients, parameters, sums);
  }
  adamw_update(Cpu{}, factors(step, lr, 0), gradients.flat(), parameters.flat(), m_.flat(),
               v_.flat());
}

void AdamW::set_factors(std::int64_t step, double lr, double limit) {
  check(factors_.defined(), "AdamW: factors are set on CUDA only");
  const AdamWFactors now = factors(step, lr, limit);
  copy_bytes(factors_.device(), factors_.raw(), kCpu, &now, sizeof now);
}

void AdamW::queue_update([[maybe_unused]] const Parameters& gradients,
                         [[maybe_unused]] Parameters& parameters, [[maybe_unused]] StepSums& sums) {
  check(factors_.defined(), "AdamW: updates with sums run on CUDA only");
  if constexpr (kHasCuda) {
    clipped_adamw_update(Cuda{}, factors_, gradients.flat(), parameters.flat(), m_.flat(),
                         v_.flat(), sums.tensor());
  }
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
  float* g = gradients.flat().data<float>();
  for (std::int64_t i = 0; i < gradients.flat().numel(); ++i) g[i] *= factor;
}

}  // namespace hax
