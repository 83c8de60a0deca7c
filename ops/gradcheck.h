// Finite-difference checks of every op's gradient, in float64. `hax gradcheck` prints them and the
// tests demand them.
//
// Each folder ops/<op>/ defines `std::vector<GradCase> <op>_gradchecks()` in <op>_gradcheck.cpp;
// the list of folders is read by CMake, so that an op without its checks does not link.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "engine/autograd.h"

namespace hax {

/// A differentiable function at a point.
struct GradCase {
  std::string op;              ///< name as recorded, e.g. "rms_norm"
  std::string what;            ///< what is special about this case, e.g. "one row"
  std::vector<Tensor> inputs;  ///< float64
  std::function<Var(std::span<const Var>)> run;
  std::vector<std::string> names = {};  ///< of the inputs, for reports; may be left out
  /// An input with more elements than this is moved in so many random directions, all its elements
  /// at once, instead of along every axis.
  std::int64_t directions = std::numeric_limits<std::int64_t>::max();
  double step = 1e-3;                    ///< of the differences, relative to elements beyond 1
  std::vector<int> always_float64 = {};  ///< inputs that are float64 whatever the others are
  bool float64_only = false;  ///< it mixes outputs of several types: cannot run in float32
  std::string folder = {};    ///< of ops/ that it is from; all_gradchecks() fills it in

  /// For reports: its name, or "input 2" when it has none.
  std::string name_of_input(int input) const;
};

struct GradError {
  double worst = 0;  ///< max over inputs of max|analytic - numeric| / max|numeric|
  int input = 0;     ///< the input where it occurs
};

/// Compares backward() with central differences along every element of every input (or in the
/// case's random directions of unit length), for a fixed random weighting of the outputs. A tensor
/// whose gradient stays below 1e-3 is compared absolutely.
GradError check_gradient(const GradCase& gradient_case);

/// What check_gradient() compares, number by number, for people to read. The loss is the sum of y
/// weighted by dy.
struct GradExample {
  Tensor y, dy;
  std::vector<Tensor> analytic = {}, numeric = {};  ///< of each input, in its shape
};

/// Differences along every element, whatever `directions` says.
GradExample gradient_example(const GradCase& gradient_case);

/// N(0, deviation^2) float64 numbers, for building cases.
Tensor gradcheck_tensor(Shape shape, std::uint64_t seed, double deviation = 1.0);

/// The cases of every op folder, in alphabetical order of the folders.
std::vector<GradCase> all_gradchecks();

}  // namespace hax
