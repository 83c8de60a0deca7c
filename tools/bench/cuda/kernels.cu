#include "tools/bench/cuda/kernels.h"

#include "engine/cuda/kernel.cuh"

namespace hax::bench {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kUnroll = 4;  // loads of 16 bytes on their way at once in every thread

__global__ void copy_kernel(const float4* from, float4* to, std::int64_t count) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads * kUnroll;
  float4 values[kUnroll];
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads + threadIdx.x;
    if (i < count) values[u] = from[i];
  }
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads + threadIdx.x;
    if (i < count) to[i] = values[u];
  }
}

// What a thread found, stored where it cannot be: the compiler does not know.
__device__ void keep_result(const float* chains, float impossible, float* keep) {
  float sum = 0;
  for (int c = 0; c < kRegisterChains; ++c) sum += chains[c];
  if (sum == impossible) keep[0] = sum;
}

__global__ void multiply_add_kernel(std::int64_t rounds, float factor, float term, float* keep) {
  float chains[kRegisterChains];
  for (int c = 0; c < kRegisterChains; ++c) {
    chains[c] = static_cast<float>(threadIdx.x) + static_cast<float>(c);
  }
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < kRegisterChains; ++c) chains[c] = fmaf(chains[c], factor, term);
  }
  keep_result(chains, -1.0f, keep);
}

// 2^(x - 1) of what is not above 0 lies between 0 and 1, and stays there.
__global__ void exponential_kernel(std::int64_t rounds, float shift, float* keep) {
  float chains[kRegisterChains];
  for (int c = 0; c < kRegisterChains; ++c) {
    chains[c] = -static_cast<float>(threadIdx.x % 32) / 32 - static_cast<float>(c);
  }
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < kRegisterChains; ++c) chains[c] = exp2f(chains[c] + shift);
  }
  keep_result(chains, -1.0f, keep);
}

__global__ void empty_kernel() {}

}  // namespace

void copy_numbers(const Tensor& from, Tensor& to) {
  const std::int64_t count = from.numel() / 4;
  check(from.numel() == to.numel() && from.numel() % 4 == 0,
        "copy: {} and {} numbers, expected as many, in fours", from.numel(), to.numel());
  cuda::launch(copy_kernel, {cuda::blocks(cuda::ceil_div(count, kThreads * kUnroll)), kThreads},
               reinterpret_cast<const float4*>(from.data<float>()),
               reinterpret_cast<float4*>(to.data<float>()), count);
}

void multiply_add(std::int64_t blocks, std::int64_t rounds, Tensor& keep) {
  cuda::launch(multiply_add_kernel, {cuda::blocks(blocks), kRegisterThreads}, rounds, 0.999f, 1e-4f,
               keep.data<float>());
}

void exponentials(std::int64_t blocks, std::int64_t rounds, Tensor& keep) {
  cuda::launch(exponential_kernel, {cuda::blocks(blocks), kRegisterThreads}, rounds, -1.0f,
               keep.data<float>());
}

void empty_launch() { cuda::launch(empty_kernel, {1, 32}); }

}  // namespace hax::bench
