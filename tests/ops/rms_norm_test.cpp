#include "ops/rms_norm/rms_norm.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

// The formula, one number at a time.
Tensor naive(const Tensor& x, const Tensor& w, double eps) {
  Tensor y = Tensor::empty(x.shape(), DType::float64);
  const std::int64_t dim = x.size(-1);
  for (std::int64_t r = 0; r < x.numel() / dim; ++r) {
    const double* in = x.data<double>() + r * dim;
    double mean = 0;
    for (std::int64_t d = 0; d < dim; ++d) mean += in[d] * in[d] / static_cast<double>(dim);
    for (std::int64_t d = 0; d < dim; ++d) {
      y.data<double>()[r * dim + d] = in[d] / std::sqrt(mean + eps) * w.data<double>()[d];
    }
  }
  return y;
}

}  // namespace

TEST_CASE("rms_norm equals the formula") {
  for (const Shape& shape :
       {Shape{6, 64}, Shape{1, 1}, Shape{3, 17}, Shape{2, 5, 9}, Shape{0, 8}}) {
    const Tensor x = random_tensor(shape, 1), w = random_tensor({shape[-1]}, 2);
    const Tensor expected = naive(x, w, 1e-5);
    CHECK(relative_error(rms_norm(x, w).value(), expected) < 1e-14);
    const Var y = rms_norm(x.to(DType::float32), w.to(DType::float32));
    CHECK(relative_error(y.value(), expected) < 1e-6);
  }
}

TEST_CASE("rms_norm of zeros is zero and its gradient finite") {
  const Var x = Var::leaf(Tensor::zeros({2, 4}, DType::float64));
  const Var y = rms_norm(x, Tensor::full({4}, 1.0, DType::float64));
  CHECK(relative_error(y.value(), Tensor::zeros({2, 4}, DType::float64)) == 0);
  backward(y, Tensor::full({2, 4}, 1.0, DType::float64));
  CHECK(x.grad().data<double>()[0] == doctest::Approx(1 / std::sqrt(1e-5)));
}

TEST_CASE("rms_norm refuses shapes and types that do not fit") {
  const Tensor x = random_tensor({2, 4}, 1);
  CHECK(error_of([&] { rms_norm(x, random_tensor({5}, 2)); }) ==
        "rms_norm: x is [2, 4] and weight is [5], expected [..., D] and [D]");
  CHECK(error_of([&] { rms_norm(x, random_tensor({4}, 2, DType::float32)); }) ==
        "rms_norm: x is float64 and weight is float32, expected equal types");
  CHECK(error_of([&] { rms_norm(x, random_tensor({4}, 2), 0.0); }) ==
        "rms_norm: eps is 0, expected a positive number");
}
