#include "engine/cuda/timer.h"

#include <doctest/doctest.h>

#include "engine/cuda/kernel.cuh"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

__global__ void count_kernel(std::int32_t* out, int rounds) {
  std::int32_t sum = 0;
  for (int i = 0; i < rounds; ++i) sum = sum * 5 + i;
  out[threadIdx.x] = sum;
}

}  // namespace

TEST_CASE("marks tell the time of what is queued between them") {
  if (!cuda_is_here()) return;
  Tensor out = Tensor::empty({32}, DType::int32, kCuda);
  cuda::TimeMark start, middle, end;
  CHECK(error_of([&] { (void)end.since(start); }) ==
        "cuda: the time at a place that was never recorded");
  start.record();
  CHECK(error_of([&] { (void)end.since(start); }) != "");
  cuda::launch(count_kernel, {1, 32}, out.data<std::int32_t>(), 20'000);
  middle.record();
  cuda::launch(count_kernel, {1, 32}, out.data<std::int32_t>(), 400'000);
  end.record();
  const double first = middle.since(start), second = end.since(middle);
  CHECK(first > 0);
  CHECK(second > 2 * first);  // twenty times the rounds
  CHECK(end.since(start) == doctest::Approx(first + second).epsilon(.01));
  middle.record();  // the later place
  CHECK(middle.since(end) >= 0);
}
