// The ops of the paper's models at the paper's sizes, as `hax bench ops` runs them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/autograd.h"
#include "engine/sequences.h"
#include "train/step_work.h"

namespace hax::bench {

/// An op on one sequence.
struct OpInstance {
  std::vector<Tensor> inputs;  ///< float32; gradients are wanted of all
  std::function<Var(std::span<const Var>)> run;
  double rows = 0;         ///< what its time is divided by
  Work forward, backward;  ///< of all rows
  bool differentiable = true;
};

struct OpCase {
  std::string name;
  /// `seed` makes the data; `targets`: rows of the sequence that are predicted.
  std::function<OpInstance(const Sequences& one, std::int64_t targets, std::uint64_t seed)> make;
};

std::vector<OpCase> op_cases();

}  // namespace hax::bench
