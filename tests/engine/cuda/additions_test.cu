// Gradients of many leaves, added by few launches.
#include <doctest/doctest.h>

#include "engine/autograd.h"
#include "engine/cuda/kernel.cuh"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("cuda: additions that do not meet go together, others in their order") {
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
    const Tensor start = Tensor::full({5000}, 1, dtype);
    Tensor sum = start.clone().to(kCuda);
    const auto ones = [&](std::int64_t count) { return Tensor::full({count}, 1, dtype).to(kCuda); };
    std::vector<Addition> additions{{sum.flat(0, 3000), ones(3000)},
                                    {sum.flat(3000, 5000), ones(2000)},
                                    {sum.flat(10, 10), ones(0)},
                                    {sum.flat(2999, 3001), ones(2)},   // meets both
                                    {sum.flat(4000, 4001), ones(1)}};  // meets the second only
    const std::int64_t before = cuda::launch_count();
    accumulate_all(additions);
    CHECK(cuda::launch_count() == before + 2);
    Tensor expected = Tensor::full({5000}, 2, dtype);
    for (const std::int64_t i : {2999, 3000, 4000}) {
      Tensor element = expected.flat(i, i + 1);
      fill(element, 3);
    }
    CHECK(same_bits(sum.to(kCpu), expected));
  }
  const Addition wrong{Tensor::zeros({2}).to(kCuda), Tensor::zeros({3}).to(kCuda)};
  CHECK(error_of([&] { accumulate_all({&wrong, 1}); }).starts_with("accumulate: "));
  accumulate_all({});
}

TEST_CASE("cuda: more additions than one launch takes, of several types") {
  std::vector<Addition> additions;
  for (int i = 0; i < 150; ++i) {
    const DType dtype = i < 140 ? DType::float32 : DType::bfloat16;
    additions.push_back({Tensor::full({3 + i % 5}, i, dtype).to(kCuda),
                         Tensor::full({3 + i % 5}, 1, dtype).to(kCuda)});
  }
  additions.push_back({Tensor::full({2}, 150), Tensor::full({2}, 1)});  // on the CPU
  const std::int64_t before = cuda::launch_count();
  accumulate_all(additions);
  CHECK(cuda::launch_count() == before + 4);
  for (std::size_t i = 0; i < additions.size(); ++i) {
    const Tensor& to = additions[i].to;
    const Tensor expected = Tensor::full(to.shape(), static_cast<double>(i + 1), to.dtype());
    CHECK(same_bits(to.to(kCpu), expected));
  }
}

TEST_CASE("cuda: backward adds the gradients of all leaves in one launch") {
  const auto run = [](Device device) {
    std::vector<Var> leaves;
    for (int i = 0; i < 5; ++i) {
      leaves.push_back(Var::leaf(Tensor::full({4, 2}, i).to(device), "",
                                 Tensor::full({4, 2}, 10 * i).to(device)));
    }
    // Every leaf twice: whole, and its middle rows.
    std::vector<Var> inputs(leaves);
    for (const Var& leaf : leaves) inputs.push_back(leaf.rows(1, 3));
    const Tensor zero = Tensor::zeros({}).to(device);
    const Var loss = record("loss", zero, inputs, [&](const Tensor& dy) {
      Grads grads;
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        grads.push_back(Tensor::full(inputs[i].shape(), static_cast<double>(i)).to(dy.device()));
      }
      return grads;
    });
    const Tensor seed = Tensor::full({}, 1).to(device);
    const std::int64_t before = cuda::launch_count();
    backward(loss, seed);
    if (!device.is_cpu()) CHECK(cuda::launch_count() - before == 2);
    std::vector<Tensor> grads;
    for (const Var& leaf : leaves) grads.push_back(leaf.grad().to(kCpu));
    return grads;
  };
  const std::vector<Tensor> cpu = run(kCpu), cuda = run(kCuda);
  for (std::size_t i = 0; i < cpu.size(); ++i) CHECK(same_bits(cpu[i], cuda[i]));
}
