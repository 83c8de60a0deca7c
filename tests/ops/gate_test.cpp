#include "ops/gate/gate.h"

#include <doctest/doctest.h>

#include <cmath>

#include "ops/elementwise/elementwise.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("gate equals its formula and the ops it replaces, gradients too") {
  for (const Shape& shape : {Shape{5, 7}, Shape{1, 1}, Shape{3, 128}, Shape{0, 4}, Shape{2, 33}}) {
    for (const DType dtype : {DType::float32, DType::float64}) {
      INFO(to_string(shape));
      const double bound = dtype == DType::float32 ? 2e-6 : 1e-14;
      std::vector<Var> fused, apart;
      for (std::uint64_t i = 0; i < 4; ++i) {
        const Tensor x = random_tensor(i == 2 ? Shape{shape[1]} : shape, i + 1, dtype);
        fused.push_back(Var::leaf(x));
        apart.push_back(Var::leaf(x));
      }
      const Var y = gate(fused[0], fused[1], fused[2], fused[3]);
      const Var z = mul_silu(add(apart[0], mul(apart[1], apart[2])), apart[3]);
      CHECK(relative_error(y.value(), z.value()) <= bound);
      const Tensor dy = random_tensor(shape, 9, dtype);
      backward(y, dy);
      backward(z, dy);
      for (std::size_t i = 0; i < 4; ++i) {
        CHECK(relative_error(fused[i].grad(), apart[i].grad()) <= bound);
      }
      for (std::int64_t k = 0; k < y.value().numel() && dtype == DType::float64; ++k) {
        const auto at = [&](std::size_t i, std::int64_t e) {
          return fused[i].value().data<double>()[e];
        };
        const double open = at(3, k) / (1 + std::exp(-at(3, k)));
        CHECK(y.value().data<double>()[k] ==
              doctest::Approx((at(0, k) + at(2, k % shape[1]) * at(1, k)) * open).epsilon(1e-13));
      }
    }
  }
}

TEST_CASE("gate over many rows sums E's gradient in pieces") {
  const Shape shape{3 * 4096 + 5, 3};
  std::vector<Var> fused, apart;
  for (std::uint64_t i = 0; i < 4; ++i) {
    const Tensor x = random_tensor(i == 2 ? Shape{3} : shape, i + 1, DType::float64);
    fused.push_back(Var::leaf(x));
    apart.push_back(Var::leaf(x));
  }
  const Tensor dy = random_tensor(shape, 9, DType::float64);
  backward(gate(fused[0], fused[1], fused[2], fused[3]), dy);
  backward(mul_silu(add(apart[0], mul(apart[1], apart[2])), apart[3]), dy);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(relative_error(fused[i].grad(), apart[i].grad()) <= 1e-12);
  }
}

TEST_CASE("gate names what does not fit") {
  const Tensor x = random_tensor({3, 2}, 1, DType::float32);
  const Tensor row = random_tensor({2}, 2, DType::float32);
  CHECK(error_of([&] {
          gate(x, random_tensor({2, 2}, 1, DType::float32), row, x);
        }) ==
        "gate: s is [3, 2], a is [2, 2], z is [3, 2] and E is [2], expected [R, D] three times and "
        "[D]");
  CHECK(error_of([&] {
          gate(x, x, row, random_tensor({3, 2}, 1, DType::float64));
        }) ==
        "gate: s is float32, a is float32, z is float64 and E is float32, expected float32 or "
        "float64 for all");
}
