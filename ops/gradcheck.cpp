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

// Five-point central difference: its truncation error is O(h^4), so that h can stay large against
// rounding.
double difference(const GradCase& c, std::vector<Tensor>& point, std::size_t input,
                  std::int64_t element, const Tensor& weights) {
  double* x = point[input].data<double>() + element;
  const double centre = *x, h = 1e-3 * std::max(1.0, std::abs(centre));
  const auto at = [&](double offset) {
    *x = centre + offset;
    const std::vector<Var> vars(point.begin(), point.end());
    return weighted_sum(c.run(vars).value(), weights);
  };
  const double slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  *x = centre;
  return slope;
}

}  // namespace

GradError check_gradient(const GradCase& c) {
  std::vector<Var> leaves;
  for (const Tensor& input : c.inputs) leaves.push_back(Var::leaf(input.clone()));
  const Var y = c.run(leaves);
  const Tensor weights = gradcheck_tensor(y.shape(), 4711);
  backward(y, weights);

  std::vector<Tensor> point;
  for (const Tensor& input : c.inputs) point.push_back(input.clone());
  GradError error;
  for (std::size_t i = 0; i < point.size(); ++i) {
    const Tensor analytic = leaves[i].grad().defined()
                                ? leaves[i].grad()
                                : Tensor::zeros(point[i].shape(), DType::float64);
    double worst = 0, scale = 0;
    for (std::int64_t e = 0; e < point[i].numel(); ++e) {
      const double numeric = difference(c, point, i, e, weights);
      worst = std::max(worst, std::abs(numeric - analytic.data<double>()[e]));
      scale = std::max(scale, std::abs(numeric));
    }
    const double relative = scale < 1e-3 ? worst : worst / scale;
    if (!(relative <= error.worst)) error = {relative, static_cast<int>(i)};
  }
  return error;
}

Tensor gradcheck_tensor(Shape shape, std::uint64_t seed, double deviation) {
  Tensor tensor = Tensor::empty(shape, DType::float64);
  fill_normal(tensor, {.seed = seed, .purpose = Purpose::test}, deviation);
  return tensor;
}

}  // namespace hax
