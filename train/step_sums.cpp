#include "train/step_sums.h"

#include "engine/dispatch.h"
#include "train/step_kernels.h"

namespace hax {

StepSums::StepSums(Device device) : sums_(Tensor::zeros({kStepSums}, DType::float64, device)) {}

void StepSums::add(const Tensor& lm_loss, const Tensor& gate_loss, const Tensor& accuracy) {
  on_device(sums_.device(),
            [&](auto device) { add_step_sums(device, lm_loss, gate_loss, accuracy, sums_); });
}

StepSums::Values StepSums::read() const {
  const Tensor here = sums_.to(kCpu);
  const double* sums = here.data<double>();
  return {sums[kLmLoss],  sums[kGateLoss], sums[kAccuracy],
          sums[kSamples], sums[kSquare],   sums[kBadUpdate]};
}

}  // namespace hax
