// AdamW (Loshchilov and Hutter, 2019) over one flat buffer.
#pragma once

#include "models/parameters.h"
#include "train/step_sums.h"

namespace hax {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

struct AdamWFactors;

/// First and second moments of every parameter, where these are. float32.
class AdamW {
 public:
  AdamW(const ParamTable& table, AdamWOptions options = {}, Device device = kCpu);

  /// One update with learning rate `lr`; `step` counts from 1:
  ///     m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
  ///     p = p (1 - lr wd) - lr (m / (1-b1^step)) / (sqrt(v / (1-b2^step)) + eps)
  void update(std::int64_t step, double lr, const Parameters& gradients, Parameters& parameters);
  /// On CUDA an update is queued without waiting, in two parts. First the numbers that differ from
  /// step to step, with `limit` for the gradients' norm (0: none), come to the device.
  void set_factors(std::int64_t step, double lr, double limit);
  /// Then the update with the factors set, the same launch for every step. Puts the gradients'
  /// square sum into `sums`; when that or a loss there is not finite, nothing is updated.
  void queue_update(const Parameters& gradients, Parameters& parameters, StepSums& sums);

  Parameters& first_moments() { return m_; }
  Parameters& second_moments() { return v_; }
  const Parameters& first_moments() const { return m_; }
  const Parameters& second_moments() const { return v_; }

 private:
  AdamWFactors factors(std::int64_t step, double lr, double limit) const;

  AdamWOptions options_;
  Parameters m_, v_;
  Tensor factors_;  // an AdamWFactors in device memory
};

/// Linear warm-up, then constant: lr min(1, step / warmup), step from 1. warmup 0: constant.
double warmup_rate(double lr, std::int64_t step, std::int64_t warmup);

/// Euclidean norm of all gradients together, summed in double in a fixed order (on the CPU from
/// front to back). Not finite when one of them is not.
double global_norm(const Parameters& gradients);

/// Scales the gradients, on the CPU, so that their norm is at most `limit`, given their norm.
void clip(Parameters& gradients, double norm, double limit);

}  // namespace hax
