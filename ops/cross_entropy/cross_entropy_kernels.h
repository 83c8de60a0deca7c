// Arithmetic of cross_entropy and sample_accuracy, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// logits [R, V], labels int32 [R] -> loss [], and for each row its largest logit, peak [R], and
/// rsum [R] = 1 / sum_v exp(logits_v - peak). Rows with a negative label are not read and get no
/// peak and rsum. Throws Error naming the first label that is V or more (CUDA: the loss is NaN).
/// loss, peak and rsum are of sum_type(logits).
void cross_entropy_forward(Cpu, const Tensor& logits, const Tensor& labels, double divisor,
                           Tensor& loss, Tensor& peak, Tensor& rsum);
void cross_entropy_forward(Cuda, const Tensor& logits, const Tensor& labels, double divisor,
                           Tensor& loss, Tensor& peak, Tensor& rsum);

/// dloss [], logits [R, V], labels int32 [R], peak, rsum [R] -> dlogits [R, V].
void cross_entropy_backward(Cpu, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            const Tensor& peak, const Tensor& rsum, double divisor,
                            Tensor& dlogits);
void cross_entropy_backward(Cuda, const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                            const Tensor& peak, const Tensor& rsum, double divisor,
                            Tensor& dlogits);

/// logits [R, V], labels int32 [R] -> accuracy float64 [S], NaN for a sample without labels.
/// Throws Error naming the first label that is V or more (CUDA: the row is not right).
void sample_accuracy(Cpu, const Tensor& logits, const Tensor& labels, const Sequences& samples,
                     Tensor& accuracy);
void sample_accuracy(Cuda, const Tensor& logits, const Tensor& labels, const Sequences& samples,
                     Tensor& accuracy);

}  // namespace hax
