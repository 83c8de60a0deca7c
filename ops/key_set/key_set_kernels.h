// Arithmetic of key sets, once for each device.
#pragma once

#include <cstdint>
#include <limits>

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Deaths that follow from positions alone: a key at position p is seen by the `reach` queries from
/// its own on if p is on the grid p mod dilation = dilation - 1 and below `limit`, else by none.
struct IntervalRule {
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

  std::int64_t reach = kNever, dilation = 1, limit = kNever;

  /// position + distance, or kNever when that is past all numbers.
  static constexpr std::int64_t later(std::int64_t position, std::int64_t distance) {
    return distance > kNever - position ? kNever : position + distance;
  }
  constexpr std::int64_t death_of(std::int64_t p) const {
    return p < limit && p % dilation == dilation - 1 ? later(p, reach) : p;
  }
};

/// death int32 [T], saturated at 2^31 - 1 (KeySet::kForever).
void interval_deaths(Cpu, const Sequences& sequences, const IntervalRule& rule, Tensor& death);
void interval_deaths(Cuda, const Sequences& sequences, const IntervalRule& rule, Tensor& death);

/// death_j = max(a_j, b_j). All int32 [T].
void unite_deaths(Cpu, const Tensor& a, const Tensor& b, Tensor& death);
void unite_deaths(Cuda, const Tensor& a, const Tensor& b, Tensor& death);

}  // namespace hax
