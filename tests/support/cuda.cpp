#include "tests/support/cuda.h"

#include <doctest/doctest.h>

#include "engine/cuda/runtime.h"
#include "tests/support/compare.h"

namespace hax::test {

bool cuda_is_here() {
  if constexpr (kHasCuda) return cuda::why_no_device().empty();
  return false;
}

bool cuda_is_emulated() {
  if constexpr (kHasCuda) return cuda_is_here() && cuda::device_info().name == "emulated";
  return false;
}

namespace {

Tensor rounded(const Tensor& x) {
  return x.to(DType::float32).to(DType::bfloat16).to(DType::float32).to(DType::float64);
}

// The result, then the gradients of the inputs (undefined where none arrives).
std::vector<Tensor> run(const DifferentiableOp& op, const std::vector<Tensor>& inputs,
                        Device device, DType dtype) {
  std::vector<Var> leaves;
  for (const Tensor& input : inputs) {
    const Tensor narrow = dtype == DType::float64 ? input : input.to(DType::float32).to(dtype);
    leaves.push_back(Var::leaf(narrow.to(device)));
  }
  const Var y = op(leaves);
  const Tensor seed = rounded(random_tensor(y.shape(), 77));
  const Tensor dy = dtype == DType::float64 ? seed : seed.to(DType::float32).to(y.dtype());
  backward(y, dy.to(device));
  std::vector<Tensor> all{y.value().to(kCpu)};
  for (const Var& leaf : leaves) all.push_back(to_device(leaf.grad(), kCpu));
  return all;
}

void compare(const std::vector<Tensor>& found, const std::vector<Tensor>& expected, double bound) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(name_of(found[i].dtype()) << " result (0) or gradient of input number " << i);
    REQUIRE(found[i].defined() == expected[i].defined());
    if (!expected[i].defined()) continue;
    CHECK(relative_error(found[i], expected[i]) <= bound);
  }
}

}  // namespace

void check_on_cuda(const DifferentiableOp& op, const std::vector<Tensor>& inputs) {
  const std::vector<Tensor> there = run(op, inputs, kCuda, DType::float32);
  compare(there, run(op, inputs, kCpu, DType::float64), 1e-5);
  const std::vector<Tensor> again = run(op, inputs, kCuda, DType::float32);
  for (std::size_t i = 0; i < there.size(); ++i) {
    if (there[i].defined()) CHECK(same_bits(there[i], again[i]));
  }
  std::vector<Tensor> narrow;
  for (const Tensor& input : inputs) narrow.push_back(rounded(input));
  compare(run(op, narrow, kCuda, DType::bfloat16), run(op, narrow, kCpu, DType::float64),
          kBf16Bound);
}

}  // namespace hax::test
