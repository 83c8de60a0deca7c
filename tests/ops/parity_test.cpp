// Every op's gradient cases once more in float32, on the CPU and on CUDA: the same results and
// gradients from the same numbers.
#include <doctest/doctest.h>

#include <algorithm>

#include "ops/gradcheck.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr double kBound = 1e-5;

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
  Run result{y.value().to(kCpu), {}};
  if (y.requires_grad()) {
    backward(y, random_tensor(y.shape(), 77, y.value().dtype()).to(device));
    for (const Var& input : inputs) {
      result.gradients.push_back(input.grad().defined() ? input.grad().to(kCpu) : Tensor{});
    }
  }
  return result;
}

}  // namespace

TEST_CASE("every op on CUDA equals the CPU, forward and backward") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  std::int64_t compared = 0;
  for (const GradCase& c : all_gradchecks()) {
    if (c.float64_only) continue;
    INFO(c.op << ": " << c.what);
    const Run cpu = run_on(kCpu, c);
    const Run cuda = run_on(kCuda, c);
    ++compared;
    CHECK(relative_error(cuda.y, cpu.y) <= kBound);
    for (std::size_t i = 0; i < cpu.gradients.size(); ++i) {
      INFO("gradient of " << c.name_of_input(static_cast<int>(i)));
      REQUIRE(cpu.gradients[i].defined() == cuda.gradients[i].defined());
      if (!cpu.gradients[i].defined()) continue;
      CHECK(relative_error(cuda.gradients[i], cpu.gradients[i]) <= kBound);
    }
  }
  CHECK(compared > 0);
}
