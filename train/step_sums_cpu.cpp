#include <cmath>

#include "train/step_kernels.h"
#include "train/step_sums.h"

namespace hax {

void add_step_sums(Cpu, const Tensor& lm_loss, const Tensor& gate_loss, const Tensor& accuracy,
                   Tensor& sums) {
  double* out = sums.data<double>();
  out[kLmLoss] += lm_loss.item();
  if (gate_loss.defined()) out[kGateLoss] += gate_loss.item();
  for (const double share : accuracy.values<double>()) {
    if (std::isnan(share)) continue;
    out[kAccuracy] += share;
    out[kSamples] += 1;
  }
}

}  // namespace hax
