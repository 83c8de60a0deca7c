// Lanes: threads that use the device side by side get what each would get alone.
#include <doctest/doctest.h>

#include <optional>
#include <thread>
#include <vector>

#include "engine/cuda/lane.h"
#include "engine/cuda/runtime.h"
#include "engine/memory.h"
#include "ops/elementwise/elementwise.h"
#include "ops/matmul/matmul.h"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

// Products, sums over rows and pool memory, again and again.
Tensor compute(std::uint64_t seed) {
  Tensor weight = random_tensor({24, 24}, seed).to(DType::float32).to(kCuda);
  Var x = Var::leaf(random_tensor({300, 24}, seed + 1).to(DType::float32).to(kCuda));
  for (int i = 0; i < 6; ++i)
    x = add(elementwise(functor::Relu{}, linear(x, Var::leaf(weight), {})), x);
  return x.value().to(kCpu);
}

}  // namespace

TEST_CASE("lanes: each thread gets what it would get alone, to the bit") {
  if (!cuda_is_here()) return;
  constexpr std::size_t kThreads = 3;
  std::vector<Tensor> alone, together(kThreads);
  for (std::size_t i = 0; i < kThreads; ++i) alone.push_back(compute(10 * i));
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&together, i] {
      const cuda::Lane lane;
      for (int round = 0; round < 3; ++round) together[i] = compute(10 * i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < kThreads; ++i) CHECK(same_bits(together[i], alone[i]));
}

TEST_CASE("lanes: memory is counted by lane, and none lies in another") {
  if (!cuda_is_here()) return;
  const Tensor outside = Tensor::zeros({1000}, DType::float32, kCuda);
  const std::int64_t before = memory_stats(kCuda).bytes_in_use;
  std::optional<Tensor> kept;
  {
    const cuda::Lane lane;
    CHECK(memory_stats(kCuda).bytes_in_use == 0);
    kept = Tensor::full({5000}, 3, DType::float32, kCuda);
    CHECK(memory_stats(kCuda).bytes_in_use >= 20000);
    CHECK_THROWS_WITH_AS(cuda::Lane(), "cuda: a lane inside a lane", Error);
    CHECK(memory_stats(kCuda).bytes_in_use >= 20000);
  }
  CHECK(memory_stats(kCuda).bytes_in_use == before);
  CHECK(kept->to(kCpu).data<float>()[4999] == 3);  // outlives its lane
  kept.reset();
  CHECK(memory_stats(kCuda).bytes_in_use == before);
}
