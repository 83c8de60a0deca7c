// Arithmetic of ranking_target and ranking_loss, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Q, K [T, N], candidates int32 [C] -> target [C]. Throws Error naming the first candidate outside
/// its padded sequence.
void ranking_target(Cpu, const Tensor& Q, const Tensor& K, const Tensor& candidates,
                    const Sequences& groups, const Sequences& sequences, Tensor& target);
void ranking_target(Cuda, const Tensor& Q, const Tensor& K, const Tensor& candidates,
                    const Sequences& groups, const Sequences& sequences, Tensor& target);

/// score, target [C] -> loss [], slope [C] = d loss / d score.
void ranking_loss_forward(Cpu, const Tensor& score, const Tensor& target, const Sequences& groups,
                          double divisor, Tensor& loss, Tensor& slope);
void ranking_loss_forward(Cuda, const Tensor& score, const Tensor& target, const Sequences& groups,
                          double divisor, Tensor& loss, Tensor& slope);

/// dloss [], slope [C] -> dscore [C].
void ranking_loss_backward(Cpu, const Tensor& dloss, const Tensor& slope, Tensor& dscore);
void ranking_loss_backward(Cuda, const Tensor& dloss, const Tensor& slope, Tensor& dscore);

}  // namespace hax
