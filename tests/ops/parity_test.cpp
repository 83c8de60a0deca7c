// Every op in float32 on CUDA beside the CPU.
#include "ops/parity.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/command.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("every op on CUDA equals the CPU, forward and backward") {
  if (!cuda_is_here()) {
    MESSAGE("skipped: this build has no CUDA backend, or the machine no device");
    return;
  }
  int compared = 0;
  for (const GradCase& c : all_gradchecks()) {
    const auto error = check_parity(c, kCuda);
    if (!error) continue;
    INFO(c.op << ": " << c.what << ", gradient of " << c.name_of_input(error->input));
    CHECK(error->result <= 1e-5);
    CHECK(error->gradient <= 1e-5);
    ++compared;
  }
  CHECK(compared >= 50);
}

TEST_CASE("a comparison of devices notices what differs") {
  // float32 on both sides, so the CPU beside itself; the second run of each gives other numbers.
  int calls = 0;
  GradCase c{"twice", "", {gradcheck_tensor({3}, 1)}, {}};
  c.run = [&](std::span<const Var> in) {
    const float factor = ++calls == 1 ? 2.0f : 2.02f;
    Tensor y = in[0].value().clone();
    for (std::int64_t i = 0; i < y.numel(); ++i) y.data<float>()[i] *= factor;
    return record("twice", y, {in[0]}, [factor](const Tensor& dy) {
      Tensor dx = dy.clone();
      for (std::int64_t i = 0; i < dx.numel(); ++i) dx.data<float>()[i] *= factor;
      return Grads{dx};
    });
  };
  const auto error = check_parity(c, kCpu);
  REQUIRE(error);
  CHECK(error->result == doctest::Approx(0.01).epsilon(0.01));
  CHECK(error->gradient == doctest::Approx(0.01).epsilon(0.01));

  c.run = [&](std::span<const Var> in) {
    Tensor y = in[0].value().clone();
    if (++calls % 2 == 0) y.data<float>()[1] = std::nanf("");
    return record("sometimes", y, {in[0]}, [](const Tensor& dy) { return Grads{dy.clone()}; });
  };
  calls = 0;
  CHECK(std::isinf(check_parity(c, kCpu)->result));

  c.float64_only = true;
  CHECK_FALSE(check_parity(c, kCpu));
}
