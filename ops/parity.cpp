#include "ops/parity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/random.h"

namespace hax {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Run {
  Tensor y;
  std::vector<Tensor> gradients;  // undefined: none arrived
};

Run run_on(Device device, const GradCase& c) {
  std::vector<Var> inputs;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const bool kept = std::ranges::count(c.always_float64, static_cast<int>(i)) > 0;
    const Tensor input = kept ? c.inputs[i] : c.inputs[i].to(DType::float32);
    inputs.push_back(Var::leaf(input.to(device)));
  }
  const Var y = c.run(inputs);
  Run run{y.value().to(kCpu), {}};
  if (!y.requires_grad()) return run;
  Tensor dy = Tensor::zeros(y.shape(), y.dtype());
  fill_normal(dy, {.seed = 77});
  backward(y, dy.to(device));
  for (const Var& input : inputs) {
    run.gradients.push_back(input.grad().defined() ? input.grad().to(kCpu) : Tensor{});
  }
  return run;
}

double distance(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return kInfinity;
  if (!a.defined()) return 0;
  const Tensor x = a.to(DType::float64), y = b.to(DType::float64);
  double worst = 0, scale = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double difference = std::abs(x.data<double>()[i] - y.data<double>()[i]);
    if (std::isnan(difference)) return kInfinity;
    worst = std::max(worst, difference);
    scale = std::max(scale, std::abs(y.data<double>()[i]));
  }
  return scale < 1e-3 ? worst : worst / scale;
}

}  // namespace

std::optional<ParityError> check_parity(const GradCase& c, Device device) {
  if (c.float64_only) return std::nullopt;
  const Run here = run_on(kCpu, c), there = run_on(device, c);
  ParityError error{.result = distance(there.y, here.y)};
  if (here.gradients.size() != there.gradients.size()) error.gradient = kInfinity;
  for (std::size_t i = 0; i < std::min(here.gradients.size(), there.gradients.size()); ++i) {
    const double found = distance(there.gradients[i], here.gradients[i]);
    if (found > error.gradient) {
      error.gradient = found;
      error.input = static_cast<int>(i);
    }
  }
  return error;
}

}  // namespace hax
