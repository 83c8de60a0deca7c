// Ops as `hax bench` runs them: those of the paper's models at the paper's sizes, and large ones.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/autograd.h"
#include "engine/sequences.h"
#include "train/step_work.h"

namespace hax::bench {

/// What an op is run on: one sequence, as the CPU takes them, or a whole pack, as CUDA does.
struct OpSetting {
  Sequences sequences;
  std::int64_t targets = 0;  ///< tokens of it that are predicted
  std::uint64_t seed = 0;    ///< makes the data
  Device device = kCpu;
};

/// An op with its data.
struct OpInstance {
  std::vector<Tensor> inputs;  ///< float32; gradients are wanted of all
  std::function<Var(std::span<const Var>)> run;
  double rows = 0;         ///< what its time is divided by
  Work forward, backward;  ///< of all rows
  bool differentiable = true;
};

struct OpCase {
  std::string name;
  std::function<OpInstance(const OpSetting&)> make;
};

/// At the sizes of the paper's models.
std::vector<OpCase> op_cases();
/// What chooses keys there: the result is a set of keys, of which run() gives one tensor.
std::vector<OpCase> selector_cases();
/// Ops that only move numbers, `width` of them in a row.
std::vector<OpCase> moving_cases(std::int64_t width);
/// The cross-entropy of `classes`, for rows of the setting's targets.
OpCase loss_case(std::string name, std::int64_t classes);
/// Mamba's scan with so many channels and states a channel.
OpCase scan_case(std::string name, std::int64_t channels, std::int64_t states);

}  // namespace hax::bench
