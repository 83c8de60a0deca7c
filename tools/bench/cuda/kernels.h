// The kernels that tell what a device can do at best. No CUDA header needed.
#pragma once

#include "engine/tensor.h"

namespace hax::bench {

/// to = from, float32 of one size that 4 divides.
void copy_numbers(const Tensor& from, Tensor& to);

/// Work in registers on every multiprocessor: `blocks` blocks with so many threads each.
inline constexpr int kRegisterThreads = 256;
/// Chains of fused multiply-adds in every thread, none waiting for another.
inline constexpr int kRegisterChains = 8;
/// `rounds` multiply-adds in every chain. keep [1] is where a result would go.
void multiply_add(std::int64_t blocks, std::int64_t rounds, Tensor& keep);
/// `rounds` exponentials (exp2f) in every chain.
void exponentials(std::int64_t blocks, std::int64_t rounds, Tensor& keep);

/// A launch that does nothing.
void empty_launch();

}  // namespace hax::bench
