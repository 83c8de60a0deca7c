#include "tests/support/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace hax::test {

double relative_error(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "compared tensors of shapes {} and {}", to_string(a.shape()),
        to_string(b.shape()));
  const Tensor x = a.to(kCpu).to(DType::float64), y = b.to(kCpu).to(DType::float64);
  double worst = 0, scale = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double p = x.data<double>()[i], q = y.data<double>()[i];
    const double difference = std::abs(p - q);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
    scale = std::max(scale, std::abs(q));
  }
  return scale < 1e-3 ? worst : worst / scale;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

Tensor random_tensor(Shape shape, std::uint64_t seed, DType dtype, double deviation) {
  Tensor tensor = Tensor::empty(shape, dtype);
  fill_normal(tensor, {.seed = seed, .purpose = Purpose::test}, deviation);
  return tensor;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace hax::test
