// What the emulation adds to a GPU: orders of threads by a seed, in which a missing barrier shows,
// and a diagnosis of threads that wait for what cannot come.
#include "engine/cuda/emulation/block.h"

#include <doctest/doctest.h>

#include <numeric>
#include <set>
#include <vector>

#include "engine/cuda/emulation/runtime.h"
#include "engine/cuda/kernel.cuh"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::cuda;
using namespace hax::test;
using emulation::BlockRunner;

namespace {

void run(unsigned blocks, unsigned threads, const std::function<void()>& body,
         std::uint64_t seed = 0) {
  BlockRunner::current().run({blocks, threads, 0, std::source_location::current()}, body, seed);
}

// The order in which threads, numbered through all blocks, begin.
std::vector<unsigned> order_of_start(unsigned blocks, unsigned threads, std::uint64_t seed) {
  std::vector<unsigned> order;
  run(
      blocks, threads, [&] { order.push_back(blockIdx.x * blockDim.x + threadIdx.x); }, seed);
  return order;
}

std::vector<unsigned> numbers(unsigned count) {
  std::vector<unsigned> all(count);
  std::iota(all.begin(), all.end(), 0u);
  return all;
}

// Each thread takes its left neighbour's number from shared memory, with the barrier between or
// without; how many get the right one.
int right_neighbours(bool with_barrier, std::uint64_t seed) {
  int right = 0;
  run(
      1, 64,
      [&] {
        HAX_SHARED(numbers, int[64]);
        const auto t = static_cast<int>(threadIdx.x);
        numbers[t] = t;
        if (with_barrier) __syncthreads();
        const int left = (t + 63) % 64;
        right += numbers[left] == left ? 1 : 0;
      },
      seed);
  return right;
}

// Turns a shared array around in rounds; without the second barrier a fast thread spoils the next
// round of a slow one, though every thread meets the first.
bool rounds_are_right(bool second_barrier, std::uint64_t seed) {
  bool right = true;
  run(
      1, 64,
      [&] {
        HAX_SHARED(value, int[64]);
        const auto t = static_cast<int>(threadIdx.x);
        for (int round = 0; round < 3; ++round) {
          value[t] = 100 * round + t;
          __syncthreads();
          right = right && value[63 - t] == 100 * round + 63 - t;
          if (second_barrier) __syncthreads();
        }
      },
      seed);
  return right;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("emulation: without a seed threads and blocks start as they are numbered") {
  CHECK(order_of_start(3, 64, 0) == numbers(192));
  CHECK(order_of_start(3, 64, 5) != numbers(192));
  CHECK(order_of_start(3, 64, 0) == numbers(192));  // also after another order
}

TEST_CASE("emulation: a seed permutes threads and blocks, the same way every time") {
  std::set<std::vector<unsigned>> orders;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const std::vector<unsigned> order = order_of_start(5, 64, seed);
    CHECK(order == order_of_start(5, 64, seed));
    std::vector<unsigned> sorted = order;
    std::ranges::sort(sorted);
    CHECK(sorted == numbers(320));
    for (std::size_t i = 0; i < 320; i += 64) {  // one block after the other all the same
      for (std::size_t t = 0; t < 64; ++t) REQUIRE(order[i + t] / 64 == order[i] / 64);
    }
    orders.insert(order);
  }
  CHECK(orders.size() == 8);
}

TEST_CASE("emulation: the order changes at every barrier") {
  std::vector<unsigned> before, after;
  run(
      1, 64,
      [&] {
        before.push_back(threadIdx.x);
        __syncthreads();
        after.push_back(threadIdx.x);
      },
      3);
  CHECK(before != after);
  std::ranges::sort(after);
  CHECK(after == numbers(64));
}

TEST_CASE("emulation: a missing barrier shows") {
  for (std::uint64_t seed = 0; seed <= 4; ++seed) {
    INFO("seed " << seed);
    CHECK(right_neighbours(true, seed) == 64);
    CHECK(right_neighbours(false, seed) < 64);
    CHECK(rounds_are_right(true, seed));
    CHECK(!rounds_are_right(false, seed));
  }
}

TEST_CASE("emulation: a missing barrier that threads in order hide shows with a seed") {
  // Thread 0 writes, the others read: in order it happens to run first.
  const auto all_see_it = [](std::uint64_t seed) {
    int seen = 0;
    run(
        1, 64,
        [&] {
          HAX_SHARED(value, int);
          if (threadIdx.x == 0) value = 42;
          seen += value == 42 ? 1 : 0;
        },
        seed);
    return seen == 64;
  };
  CHECK(all_see_it(0));
  int found = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) found += all_see_it(seed) ? 0 : 1;
  CHECK(found >= 3);
}

TEST_CASE("emulation: a missing warp barrier shows with a seed") {
  const auto right = [](bool barrier, std::uint64_t seed) {
    int count = 0;
    run(
        1, 32,
        [&] {
          HAX_SHARED(value, int);
          const auto t = static_cast<int>(threadIdx.x);
          if (t == 0) value = 1;
          __syncwarp();
          if (t == 31) value = 2;
          if (barrier) __syncwarp();
          count += value == 2 ? 1 : 0;
        },
        seed);
    return count == 32;
  };
  int found = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    CHECK(right(true, seed));
    found += right(false, seed) ? 0 : 1;
  }
  CHECK(found >= 6);
}

TEST_CASE("emulation: set_order reaches launches") {
  const auto order = [](std::uint64_t seed) {
    emulation::set_order(seed);
    std::vector<unsigned> started;
    launch(
        +[](std::vector<unsigned>* all) { all->push_back(threadIdx.x); }, {1, 64}, &started);
    return started;
  };
  CHECK(order(0) == numbers(64));
  CHECK(order(9) != numbers(64));
  emulation::set_order(0);
}

TEST_CASE("emulation: threads that wait at different barriers are an error that names both") {
  const std::string error = error_of([] {
    run(2, 64, [] {
      if (threadIdx.x < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
    });
  });
  INFO(error);
  CHECK(contains(error, "kernel launched at"));
  CHECK(contains(error, "block (0, 0, 0): divergent barrier: thread 0 waits at"));
  CHECK(contains(error, "thread 32 at"));
  CHECK(contains(error, "block_test.cpp"));
}

TEST_CASE("emulation: a barrier that a thread never reaches is an error") {
  const std::string error = error_of([] {
    run(1, 64, [] {
      if (threadIdx.x == 40) return;
      __syncthreads();
    });
  });
  INFO(error);
  CHECK(contains(error, "divergent barrier: thread 0 waits at the barrier"));
  CHECK(contains(error, "but thread 40 has exited"));
}

TEST_CASE("emulation: warp operations that do not meet are errors") {
  const auto error = [](const std::function<void()>& body) {
    return error_of([&] { run(1, 64, body); });
  };
  const std::string exited = error([] {
    if (threadIdx.x == 7) return;
    __syncwarp();
  });
  INFO(exited);
  CHECK(contains(exited, "divergent warp operation: thread 0 waits at the warp operation"));
  CHECK(contains(exited, "but thread 7 has exited"));

  const std::string different = error([] {
    if (threadIdx.x % 2 == 0) {
      __shfl_sync(kAllLanes, 1, 0);
    } else {
      __ballot_sync(kAllLanes, 1);
    }
  });
  INFO(different);
  CHECK(contains(different, "divergent warp operation: thread 31 waits"));

  const std::string masks = error([] { __syncwarp(threadIdx.x == 3 ? 0xffu : kAllLanes); });
  INFO(masks);
  CHECK(contains(masks, "divergent warp operation"));

  const std::string not_in_mask = error([] { __syncwarp(0xfffffffeu); });
  INFO(not_in_mask);
  CHECK(contains(not_in_mask, "lane 0 is not in its own mask 0xfffffffe"));

  const std::string outside = error([] {
    if (threadIdx.x % 32 < 16) __shfl_sync(0xffffu, 1, 20);
  });
  INFO(outside);
  CHECK(contains(outside, "reads lane 20, which is not in the mask 0xffff"));
}

TEST_CASE("emulation: after an error the next kernel runs") {
  for (int round = 0; round < 3; ++round) {
    CHECK(error_of([] {
            run(1, 128, [] {
              if (threadIdx.x != 5) __syncthreads();
            });
          }) != "");
    CHECK(right_neighbours(true, 2) == 64);
  }
}

TEST_CASE("emulation: shared memory starts as garbage in every block") {
  int nan = 0, zero = 0, minus_one = 0;
  run(3, 32, [&] {
    HAX_SHARED(number, float[32]);
    HAX_SHARED(index, int[32]);
    nan += std::isnan(number[threadIdx.x]) ? 1 : 0;
    minus_one += index[threadIdx.x] == -1 ? 1 : 0;
    zero += number[threadIdx.x] == 0 ? 1 : 0;
    number[threadIdx.x] = 0;  // the next block must not see it
    index[threadIdx.x] = 0;
  });
  CHECK(nan == 96);
  CHECK(minus_one == 96);
  CHECK(zero == 0);
}

TEST_CASE("emulation: dynamic shared memory that the launch did not ask for is an error") {
  CHECK(contains(error_of([] { run(1, 32, [] { dynamic_shared<float>()[0] = 1; }); }),
                 "uses dynamic shared memory, its launch asks for none"));
}
