// Copies that a thread waits for by groups.
#include "engine/cuda/async_copy.cuh"

#include <doctest/doctest.h>

#include <vector>

using namespace hax;
using namespace hax::cuda;

namespace {

// Three groups of copies, 16, 8 and 4 bytes a thread; sums[k]: of what group k brought.
__global__ void copies_kernel(const std::int32_t* numbers, std::int32_t* sums) {
  HAX_SHARED(fours, std::int32_t[32][4]);
  HAX_SHARED(pairs, std::int32_t[32][2]);
  HAX_SHARED(ones, std::int32_t[32]);
  const int t = static_cast<int>(threadIdx.x);
  copy_async<16>(fours[t], numbers + 4 * t);
  commit_copies();
  copy_async<8>(pairs[t], numbers + 2 * t);
  commit_copies();
  copy_async<4>(&ones[t], numbers + t);
  commit_copies();
  wait_for_copies<2>();
  __syncthreads();
  std::int32_t sum = 0;
  for (const std::int32_t x : fours[31 - t]) sum += x;
  sums[t] = sum;
  wait_for_copies<1>();
  __syncthreads();
  sums[32 + t] = pairs[31 - t][0] + pairs[31 - t][1];
  wait_for_copies<0>();
  __syncthreads();
  sums[64 + t] = ones[31 - t];
}

}  // namespace

TEST_CASE("asynchronous copies are there when a thread has waited for their group") {
  if (!why_no_device().empty()) {
    MESSAGE("skipped: no CUDA device (" << why_no_device() << ")");
    return;
  }
  std::vector<std::int32_t> numbers;
  for (std::int32_t i = 0; i < 128; ++i) numbers.push_back(i * i);
  const Tensor from = Tensor::from(numbers).to(kCuda);
  Tensor sums = Tensor::empty({96}, DType::int32, kCuda);
  launch(copies_kernel, {1, 32}, from.data<std::int32_t>(), sums.data<std::int32_t>());
  const Tensor host = sums.to(kCpu);
  for (int t = 0; t < 32; ++t) {
    const int other = 31 - t;
    int expected[3] = {0, 0, other * other};
    for (int i = 0; i < 4; ++i) expected[0] += (4 * other + i) * (4 * other + i);
    for (int i = 0; i < 2; ++i) expected[1] += (2 * other + i) * (2 * other + i);
    for (int k = 0; k < 3; ++k) CHECK(host.data<std::int32_t>()[32 * k + t] == expected[k]);
  }
}
