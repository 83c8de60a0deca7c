// Arithmetic of rotary, once for each device.
#pragma once

#include <vector>

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

struct RotaryOptions {
  std::int64_t heads;
  double theta;
  std::vector<std::int64_t> first;  ///< [S], or empty: zeros
  Tensor rows;                      ///< int32 [R], or undefined: all
  Tensor first_on_device = {};      ///< `first` for a kernel: int64 [S], undefined where empty
};

/// x [R, heads P] -> y [R, heads P]; `back` turns the other way, which is also the gradient.
void rotary_turn(Cpu, const Tensor& x, const Sequences& sequences, const RotaryOptions& options,
                 bool back, Tensor& y);
void rotary_turn(Cuda, const Tensor& x, const Sequences& sequences, const RotaryOptions& options,
                 bool back, Tensor& y);

}  // namespace hax
