#include "ops/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "engine/random.h"

namespace hax {
namespace {

double weighted_sum(const Tensor& y, const Tensor& weights) {
  double sum = 0;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    sum += y.data<double>()[i] * weights.data<double>()[i];
  }
  return sum;
}

// Where an input moves: one axis, or all elements at once by random amounts, of length 1 in sum.
Tensor direction_of(const Tensor& input, std::int64_t index, bool axes) {
  Tensor direction = Tensor::zeros(input.shape(), DType::float64);
  double* d = direction.data<double>();
  if (axes) {
    d[index] = 1;
    return direction;
  }
  fill_normal(direction, {.seed = 815, .step = static_cast<std::uint32_t>(index)});
  const double length = std::sqrt(weighted_sum(direction, direction));
  for (std::int64_t i = 0; i < direction.numel(); ++i) d[i] /= length;
  return direction;
}

// Five-point central difference: its truncation error is O(h^4), so that h can stay large against
// rounding.
double slope_of(const GradCase& c, std::vector<Tensor>& point, std::size_t input,
                const Tensor& direction, const Tensor& weights) {
  const double* centre = c.inputs[input].data<double>();
  const double* d = direction.data<double>();
  double* x = point[input].data<double>();
  const std::int64_t count = direction.numel();
  double size = 1;
  for (std::int64_t i = 0; i < count; ++i) size = std::max(size, std::abs(centre[i] * d[i]));
  const auto move = [&](double offset) {
    for (std::int64_t i = 0; i < count; ++i) x[i] = centre[i] + offset * d[i];
  };
  const auto at = [&](double offset) {
    move(offset);
    const std::vector<Var> vars(point.begin(), point.end());
    return weighted_sum(c.run(vars).value(), weights);
  };
  const double h = c.step * size;
  const double result = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  move(0);
  return result;
}

// y, its weights, and the gradients that backward() leaves.
GradExample run_backward(const GradCase& c) {
  std::vector<Var> leaves;
  for (const Tensor& input : c.inputs) leaves.push_back(Var::leaf(input.clone()));
  const Var y = c.run(leaves);
  GradExample example{.y = y.value(), .dy = gradcheck_tensor(y.shape(), 4711)};
  backward(y, example.dy);
  for (const Var& leaf : leaves) {
    example.analytic.push_back(leaf.grad().defined() ? leaf.grad()
                                                     : Tensor::zeros(leaf.shape(), DType::float64));
  }
  return example;
}

std::vector<Tensor> copies_of(const std::vector<Tensor>& inputs) {
  std::vector<Tensor> copies;
  for (const Tensor& input : inputs) copies.push_back(input.clone());
  return copies;
}

}  // namespace

std::string GradCase::name_of_input(int input) const {
  const auto index = static_cast<std::size_t>(input);
  return index < names.size() ? names[index] : fmt::format("input {}", input);
}

GradError check_gradient(const GradCase& c) {
  const GradExample example = run_backward(c);
  std::vector<Tensor> point = copies_of(c.inputs);
  GradError error;
  for (std::size_t i = 0; i < point.size(); ++i) {
    const Tensor& analytic = example.analytic[i];
    const bool axes = point[i].numel() <= c.directions;
    double worst = 0, scale = 0;
    for (std::int64_t k = 0; k < std::min(point[i].numel(), c.directions); ++k) {
      const Tensor direction = direction_of(point[i], k, axes);
      const double numeric = slope_of(c, point, i, direction, example.dy);
      const double gap = std::abs(numeric - weighted_sum(analytic, direction));
      // NaN compares with nothing: it must not slip through the maximum.
      worst = std::isfinite(gap) ? std::max(worst, gap) : std::numeric_limits<double>::infinity();
      scale = std::max(scale, std::abs(numeric));
    }
    const double relative = scale < 1e-3 ? worst : worst / scale;
    if (!(relative <= error.worst)) error = {relative, static_cast<int>(i)};
  }
  return error;
}

GradExample gradient_example(const GradCase& c) {
  GradExample example = run_backward(c);
  std::vector<Tensor> point = copies_of(c.inputs);
  for (std::size_t i = 0; i < point.size(); ++i) {
    Tensor numeric = Tensor::empty(point[i].shape(), DType::float64);
    for (std::int64_t k = 0; k < numeric.numel(); ++k) {
      const Tensor axis = direction_of(point[i], k, true);
      numeric.data<double>()[k] = slope_of(c, point, i, axis, example.dy);
    }
    example.numeric.push_back(numeric);
  }
  return example;
}

Tensor gradcheck_tensor(Shape shape, std::uint64_t seed, double deviation) {
  Tensor tensor = Tensor::empty(shape, DType::float64);
  fill_normal(tensor, {.seed = seed, .purpose = Purpose::test}, deviation);
  return tensor;
}

}  // namespace hax
