// What a step adds up where it runs, so that the host asks once, after everything is queued.
#pragma once

#include "engine/tensor.h"
#include "train/step.h"

namespace hax {

/// Places of the sums, float64 [kStepSums] on the device of the step.
enum StepSum : std::int32_t {
  kLmLoss,     ///< mean cross-entropy over the targets
  kGateLoss,   ///< ranking loss
  kAccuracy,   ///< shares of right targets, summed over samples
  kSamples,    ///< how many samples have targets
  kSquare,     ///< of all gradients, added up
  kBadUpdate,  ///< 1 when an updated parameter is not finite, else 0
  kStepSums
};

class StepSums {
 public:
  explicit StepSums(Device device);

  /// Adds what a pack gave: its part of both losses (scalars; the second may be undefined) and the
  /// accuracy of its samples, float64 [S] with NaN for a sample without targets.
  void add(const Tensor& lm_loss, const Tensor& gate_loss, const Tensor& accuracy);
  Tensor& tensor() { return sums_; }

  struct Values {
    double lm_loss, gate_loss, accuracy, samples, square, bad_update;
  };
  /// Waits for the device.
  Values read() const;

 private:
  Tensor sums_;
};

}  // namespace hax
