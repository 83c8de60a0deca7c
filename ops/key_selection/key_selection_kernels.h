// Arithmetic of key_selection, once for each device.
#pragma once

#include "ops/key_set/key_set.h"

namespace hax {

/// score [T] -> death int32 [T]: where each key leaves the running top `keys` of its sequence.
void running_top_k(Cpu, const Tensor& score, const Sequences& sequences, std::int64_t keys,
                   Tensor& death);
void running_top_k(Cuda, const Tensor& score, const Sequences& sequences, std::int64_t keys,
                   Tensor& death);

}  // namespace hax
