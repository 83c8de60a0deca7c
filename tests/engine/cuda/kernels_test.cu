// What kernels may rely on, on a GPU and in the emulation alike: places in a grid, barriers, warp
// operations, shared memory, integer atomics; and what a launch refuses.
#include <doctest/doctest.h>

#include <vector>

#include "engine/cuda/kernel.cuh"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::cuda;
using namespace hax::test;

namespace {

bool no_device() {
  if (why_no_device().empty()) return false;
  MESSAGE("skipped: no CUDA device (" << why_no_device() << ")");
  return true;
}

Tensor device_ints(std::int64_t count, std::int32_t value = 0) {
  return Tensor::full({count}, value, DType::int32).to(kCuda);
}

std::vector<std::int32_t> to_host(const Tensor& tensor) {
  const Tensor host = tensor.to(kCpu);
  const auto* data = host.data<std::int32_t>();
  return {data, data + host.numel()};
}

__global__ void places_kernel(std::int32_t* out) {
  const auto thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const auto block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const auto per_block = blockDim.x * blockDim.y * blockDim.z;
  out[block * per_block + thread] =
      static_cast<std::int32_t>(block * 1000 + threadIdx.z * 100 + threadIdx.y * 10 + threadIdx.x);
}

__global__ void strided_kernel(std::int32_t* out, std::int64_t count) {
  for (std::int64_t i = global_thread(); i < count; i += global_threads()) out[i] += 1;
}

// Every thread takes what another warp wrote: the block's numbers in reverse, in two ways.
__global__ void reverse_kernel(std::int32_t* out) {
  HAX_SHARED(fixed, std::int32_t[128]);
  auto* dynamic = dynamic_shared<std::int32_t>();
  const int t = static_cast<int>(threadIdx.x);
  fixed[t] = t;
  __syncthreads();
  dynamic[127 - t] = fixed[127 - t] + 1000;
  __syncthreads();
  out[t] = fixed[127 - t];
  out[128 + t] = dynamic[t ^ 64];
}

__global__ void shuffles_kernel(std::int32_t* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::int32_t* row = out + 8 * threadIdx.x;
  row[0] = __shfl_sync(kAllLanes, lane, 5);
  row[1] = __shfl_sync(kAllLanes, lane, lane + 1, 8);  // within groups of 8
  row[2] = __shfl_up_sync(kAllLanes, lane, 3);
  row[3] = __shfl_down_sync(kAllLanes, lane, 3);
  row[4] = __shfl_down_sync(kAllLanes, lane, 3, 16);
  row[5] = __shfl_xor_sync(kAllLanes, lane, 21);
  row[6] = __shfl_up_sync(kAllLanes, lane, 1, 4);
  // Half a warp alone, in a branch that the other half does not enter.
  row[7] = -1;
  if (lane >= 16) row[7] = __shfl_xor_sync(0xffff0000u, lane, 1);
}

__global__ void votes_kernel(std::int32_t* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::int32_t* row = out + 8 * threadIdx.x;
  row[0] = static_cast<std::int32_t>(__ballot_sync(kAllLanes, lane % 3 == 0));
  row[1] = __any_sync(kAllLanes, lane == 31) != 0;
  row[2] = __any_sync(kAllLanes, lane == 32) != 0;
  row[3] = __all_sync(kAllLanes, lane < 32) != 0;
  row[4] = __all_sync(kAllLanes, lane < 31) != 0;
  row[5] = __syncthreads_count(threadIdx.x % 5 == 0);
  row[6] = __syncthreads_or(threadIdx.x == 77) != 0;
  row[7] = __syncthreads_and(threadIdx.x != 77) != 0;
}

__global__ void bits_kernel(std::int32_t* out) {
  out[0] = __popc(0xf0f0u);
  out[1] = __clz(1);
  out[2] = __ffs(8);
  out[3] = __ffs(0);
  out[4] = static_cast<std::int32_t>(__brev(1u) >> 31);
  out[5] = __popcll(~0ull);
  out[6] = __float_as_int(1.0f);
  out[7] = __clzll(1);
}

__global__ void atomics_kernel(std::int32_t* out, std::int32_t* tickets) {
  const auto i = static_cast<std::int32_t>(global_thread());
  tickets[atomicAdd(&out[0], 1)] = 1;  // every ticket once
  atomicMax(&out[1], i);
  atomicMin(&out[2], i);
  atomicOr(&out[3], 1 << i % 20);
  atomicCAS(&out[4], 7, 70 + 1);
  if (i == 3) atomicExch(&out[5], 9);
}

__global__ void sums_kernel(float* out) {
  const int t = static_cast<int>(threadIdx.x);
  const float warp = warp_sum(static_cast<float>(t));
  const float largest = warp_max(static_cast<float>((t * 7) % 32));
  const float first = block_sum(static_cast<float>(t)), second = block_sum(1.0f);
  float* row = out + 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  row[0] = warp;
  row[1] = largest;
  row[2] = first;
  row[3] = second;
}

}  // namespace

TEST_CASE("cuda: threads of a grid of three dimensions know their place") {
  if (no_device()) return;
  Tensor out = device_ints(6 * 96, -1);
  launch(places_kernel, {dim3(3, 2, 1), dim3(8, 4, 3)}, out.data<std::int32_t>());
  const std::vector<std::int32_t> got = to_host(out);
  bool all = true;
  for (int block = 0; block < 6; ++block) {
    for (int t = 0; t < 96; ++t) {
      const int expected = block * 1000 + t / 32 * 100 + t / 8 % 4 * 10 + t % 8;
      all = all && got[static_cast<std::size_t>(block * 96 + t)] == expected;
    }
  }
  CHECK(all);
}

TEST_CASE("cuda: a kernel that strides over its grid meets every element once") {
  if (no_device()) return;
  for (const std::int64_t count : {1, 63, 64, 65, 1000}) {
    Tensor out = device_ints(1000);
    launch(strided_kernel, {3, 64}, out.data<std::int32_t>(), count);
    const std::vector<std::int32_t> got = to_host(out);
    for (std::int64_t i = 0; i < 1000; ++i) {
      REQUIRE(got[static_cast<std::size_t>(i)] == (i < count ? 1 : 0));
    }
  }
  CHECK(blocks_for(1, 64) == 1);
  CHECK(blocks_for(65, 64) == 2);
  CHECK(blocks_for(std::int64_t{1} << 40, 256) == kMaxStridingBlocks);
}

TEST_CASE("cuda: after a barrier a thread sees what others wrote to shared memory") {
  if (no_device()) return;
  Tensor out = device_ints(256, -1);
  launch(reverse_kernel, {1, 128, 128 * sizeof(std::int32_t)}, out.data<std::int32_t>());
  const std::vector<std::int32_t> got = to_host(out);
  for (int t = 0; t < 128; ++t) {
    REQUIRE(got[static_cast<std::size_t>(t)] == 127 - t);
    REQUIRE(got[static_cast<std::size_t>(128 + t)] == (t ^ 64) + 1000);
  }
}

TEST_CASE("cuda: shuffles bring what the source lane holds, or the lane's own") {
  if (no_device()) return;
  Tensor out = device_ints(64 * 8, -2);
  launch(shuffles_kernel, {1, 64}, out.data<std::int32_t>());
  const std::vector<std::int32_t> got = to_host(out);
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32;
    const std::int32_t* row = &got[static_cast<std::size_t>(8 * t)];
    INFO("thread " << t);
    CHECK(row[0] == 5);
    CHECK(row[1] == lane / 8 * 8 + (lane + 1) % 8);
    CHECK(row[2] == (lane >= 3 ? lane - 3 : lane));
    CHECK(row[3] == (lane + 3 < 32 ? lane + 3 : lane));
    CHECK(row[4] == (lane % 16 + 3 < 16 ? lane + 3 : lane));
    CHECK(row[5] == (lane ^ 21));
    CHECK(row[6] == (lane % 4 >= 1 ? lane - 1 : lane));
    CHECK(row[7] == (lane >= 16 ? (lane ^ 1) : -1));
  }
}

TEST_CASE("cuda: votes of a warp and of a block") {
  if (no_device()) return;
  Tensor out = device_ints(96 * 8, -2);
  launch(votes_kernel, {1, 96}, out.data<std::int32_t>());
  const std::vector<std::int32_t> got = to_host(out);
  std::uint32_t thirds = 0;
  for (unsigned lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  for (std::size_t t = 0; t < 96; ++t) {
    const std::vector<std::int32_t> row(&got[8 * t], &got[8 * t] + 8);
    CHECK(row ==
          std::vector<std::int32_t>{static_cast<std::int32_t>(thirds), 1, 0, 1, 0, 20, 1, 0});
  }
}

TEST_CASE("cuda: bit functions") {
  if (no_device()) return;
  Tensor out = device_ints(8);
  launch(bits_kernel, {1, 32}, out.data<std::int32_t>());
  CHECK(to_host(out) == std::vector<std::int32_t>{8, 31, 4, 0, 1, 64, 0x3f800000, 63});
}

TEST_CASE("cuda: integer atomics") {
  if (no_device()) return;
  Tensor out = Tensor::from(std::vector<std::int32_t>{0, -5, 1000, 0, 7, 0}).to(kCuda);
  Tensor tickets = device_ints(256);
  launch(atomics_kernel, {4, 64}, out.data<std::int32_t>(), tickets.data<std::int32_t>());
  CHECK(to_host(out) == std::vector<std::int32_t>{256, 255, 0, (1 << 20) - 1, 71, 9});
  CHECK(to_host(tickets) == std::vector<std::int32_t>(256, 1));
}

TEST_CASE("cuda: sums of a warp and of a block, the same in every thread") {
  if (no_device()) return;
  for (const unsigned threads : {32u, 64u, 256u, 1024u}) {
    Tensor out = Tensor::empty({2 * threads, 4}, DType::float32, kCuda);
    launch(sums_kernel, {2, threads}, out.data<float>());
    const Tensor host = out.to(kCpu);
    const auto n = static_cast<float>(threads);
    for (unsigned i = 0; i < 2 * threads; ++i) {
      const float* row = host.data<float>() + std::size_t{4} * i;
      const auto warp = static_cast<float>(i % threads / 32);
      REQUIRE(row[0] == 32 * 32 * warp + 31 * 16);
      REQUIRE(row[1] == 31);
      REQUIRE(row[2] == n * (n - 1) / 2);
      REQUIRE(row[3] == n);
    }
  }
}

TEST_CASE("cuda: a launch that cannot be names its place") {
  if (no_device()) return;
  Tensor out = device_ints(64);
  auto* data = out.data<std::int32_t>();
  const auto error = [&](const LaunchShape& shape) {
    return error_of([&] { launch(strided_kernel, shape, data, std::int64_t{64}); });
  };
  const std::string here = "cuda/kernels_test.cu:";
  for (const std::string& what :
       {error({1, 33}), error({1, 2048}), error({1, dim3(32, 64)}), error({1, 0})}) {
    INFO(what);
    CHECK(what.find(here) != std::string::npos);
    CHECK(what.find("threads in a block, expected a multiple of 32 up to 1024") !=
          std::string::npos);
  }
  const std::string grid = error({dim3(1, 65536), 32}), shared = error({1, 32, 10u << 20});
  INFO(grid << "\n" << shared);
  CHECK(grid.find(here) != std::string::npos);
  CHECK(grid.find("a grid of 1 x 65536 x 1 blocks") != std::string::npos);
  CHECK(shared.find(here) != std::string::npos);
  CHECK(shared.find("10485760 bytes of shared memory") != std::string::npos);
  CHECK(error_of([] { blocks(-1); }) != "");
  CHECK(error_of([] { blocks(std::int64_t{1} << 31); }) != "");
}

TEST_CASE("cuda: a grid without blocks is no launch, every other one counts") {
  if (no_device()) return;
  Tensor out = device_ints(64);
  const std::int64_t before = launch_count();
  launch(strided_kernel, {0, 64}, out.data<std::int32_t>(), std::int64_t{64});
  CHECK(launch_count() == before);
  launch(strided_kernel, {1, 64}, out.data<std::int32_t>(), std::int64_t{64});
  launch(strided_kernel, {2, 64}, out.data<std::int32_t>(), std::int64_t{64});
  CHECK(launch_count() == before + 2);
  CHECK(to_host(out) == std::vector<std::int32_t>(64, 2));
}

TEST_CASE("cuda: storage types that kernels do not have are refused by name") {
  const auto storage = []<class T>(T* = nullptr) {};
  const auto visit = [&] {
    visit_storage("op", DType::float64, [&]<class T>() { storage.template operator()<T>(); });
  };
  CHECK(error_of(visit) == "op: float64 tensors on cuda, expected float32 or bfloat16");
}
