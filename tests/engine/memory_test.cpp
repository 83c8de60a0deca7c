#include "engine/memory.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "engine/tensor.h"
#include "tests/support/compare.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

using namespace hax;
using namespace hax::test;

TEST_CASE("blocks are aligned to 64 bytes, and all of their bytes can be used") {
  for (const std::size_t bytes : {0, 1, 63, 255, 256, 257, 320, 321, 1000, 4097, 70001, 1 << 20}) {
    void* block = allocate(kCpu, bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(block) % 64 == 0);
    std::memset(block, 1, bytes);
    deallocate(kCpu, block, bytes);
  }
}

TEST_CASE("two blocks in use never overlap") {
  std::vector<Tensor> tensors;
  for (int i = 0; i < 200; ++i) tensors.push_back(Tensor::full({1 + i % 13, 7}, i));
  for (int i = 0; i < 200; ++i) {
    const Tensor& tensor = tensors[static_cast<std::size_t>(i)];
    CHECK(relative_error(tensor, Tensor::full(tensor.shape(), i)) == 0);
  }
}

TEST_CASE("after a warm-up nothing is requested from the system") {
  const auto work = [](int round) {
    std::vector<Tensor> kept;
    for (int i = 0; i < 20; ++i) {
      // The lengths differ from round to round; their size classes do not.
      kept.push_back(Tensor::empty({1000 + round % 16, i + 1}));
      Tensor::zeros({64, 64}, DType::float64);
    }
  };
  for (int round = 0; round < 16; ++round) work(round);
  const std::int64_t before = memory_stats(kCpu).system_requests;
  for (int round = 0; round < 100; ++round) work(round);
  CHECK(memory_stats(kCpu).system_requests == before);
}

TEST_CASE("memory statistics follow what is in use, its peak, and what is held") {
  release_cached_memory(kCpu);
  const MemoryStats start = memory_stats(kCpu);
  CHECK(start.bytes_reserved == start.bytes_in_use);
  reset_peak_memory(kCpu);
  CHECK(memory_stats(kCpu).peak_bytes_in_use == start.bytes_in_use);

  constexpr std::int64_t kMiB = 1 << 20;  // a size class of its own: nothing is rounded up
  Tensor first = Tensor::empty({kMiB}, DType::uint8);
  Tensor second = Tensor::empty({2 * kMiB}, DType::uint8);
  MemoryStats now = memory_stats(kCpu);
  CHECK(now.bytes_in_use == start.bytes_in_use + 3 * kMiB);
  CHECK(now.bytes_reserved == start.bytes_reserved + 3 * kMiB);
  CHECK(now.system_requests == start.system_requests + 2);

  second = {};
  now = memory_stats(kCpu);
  CHECK(now.bytes_in_use == start.bytes_in_use + kMiB);
  CHECK(now.peak_bytes_in_use == start.bytes_in_use + 3 * kMiB);
  CHECK(now.bytes_reserved == start.bytes_reserved + 3 * kMiB);  // cached

  second = Tensor::empty({2 * kMiB}, DType::uint8);  // from the cache
  CHECK(memory_stats(kCpu).system_requests == start.system_requests + 2);
  second = first = {};
  release_cached_memory(kCpu);
  now = memory_stats(kCpu);
  CHECK(now.bytes_in_use == start.bytes_in_use);
  CHECK(now.bytes_reserved == start.bytes_reserved);
}

TEST_CASE("rounding up to a size class wastes at most a quarter") {
  for (std::int64_t bytes = 257; bytes < 3'000'000; bytes = bytes * 9 / 8 + 1) {
    const std::int64_t before = memory_stats(kCpu).bytes_in_use;
    const Tensor tensor = Tensor::empty({bytes}, DType::uint8);
    const std::int64_t used = memory_stats(kCpu).bytes_in_use - before;
    CHECK(used >= bytes);
    CHECK(used <= bytes + bytes / 4 + 64);
  }
}

TEST_CASE("a request that cannot be met leaves the statistics as they were") {
  const MemoryStats before = memory_stats(kCpu);
  for (const std::size_t bytes : {std::size_t{1} << 57, ~std::size_t{0}, ~std::size_t{0} / 2}) {
    CHECK(
        error_of([&] { (void)allocate(kCpu, bytes); }) ==
        fmt::format("out of memory: a tensor needs {} bytes; use a smaller batch or model", bytes));
  }
  const MemoryStats after = memory_stats(kCpu);
  CHECK(after.bytes_in_use == before.bytes_in_use);
  CHECK(after.bytes_reserved == before.bytes_reserved);
  CHECK(after.system_requests == before.system_requests);
}

#ifdef __SANITIZE_ADDRESS__
TEST_CASE("the sanitizer sees what lies beyond a tensor, and a tensor that is gone") {
  Tensor tensor = Tensor::zeros({3}, DType::uint8);
  const auto* bytes = static_cast<const std::uint8_t*>(tensor.raw());
  CHECK_FALSE(__asan_address_is_poisoned(bytes + 2));
  CHECK(__asan_address_is_poisoned(bytes + 3));
  CHECK(__asan_address_is_poisoned(bytes + 255));
  tensor = {};
  CHECK(__asan_address_is_poisoned(bytes));
  CHECK(__asan_address_is_poisoned(Tensor::empty({0}).raw()));
}
#elif !defined(__SANITIZE_THREAD__)  // a sanitizer's allocator would end the program
TEST_CASE("cached blocks are given back before a request fails") {
  { const Tensor cached = Tensor::empty({1 << 20}); }
  CHECK(memory_stats(kCpu).bytes_reserved > memory_stats(kCpu).bytes_in_use);
  CHECK_THROWS_AS((void)allocate(kCpu, std::size_t{1} << 50), Error);
  CHECK(memory_stats(kCpu).bytes_reserved == memory_stats(kCpu).bytes_in_use);
}
#endif

TEST_CASE("threads share the pool without sharing blocks") {
  const std::int64_t before = memory_stats(kCpu).bytes_in_use;
  std::vector<int> damaged(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t, &damaged] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<Tensor> kept(16);
      for (int i = 0; i < 3000; ++i) {
        Tensor& slot = kept[random() % kept.size()];
        if (slot.defined()) {
          // Every number is still what this thread wrote when it took the block.
          const std::span<const float> values = slot.values<float>();
          for (const float value : values) {
            if (value != values.front() || static_cast<int>(value) % 4 != t) {
              ++damaged[static_cast<std::size_t>(t)];
            }
          }
        }
        slot = Tensor::full({static_cast<std::int64_t>(1 + random() % 300)}, 4 * (i % 1000) + t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(damaged == std::vector<int>(4, 0));
  CHECK(memory_stats(kCpu).bytes_in_use == before);
}

TEST_CASE("a tensor may be freed by another thread than the one that made it") {
  const std::int64_t before = memory_stats(kCpu).bytes_in_use;
  Tensor tensor = Tensor::full({1000}, 3);
  std::thread([moved = std::move(tensor)]() mutable { moved = {}; }).join();
  CHECK(memory_stats(kCpu).bytes_in_use == before);
}
