// CUDA's language for another compiler: the words that kernels use. Include kernel.cuh.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <source_location>
#include <type_traits>

#include "engine/cuda/emulation/block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

#define threadIdx (::hax::emulation::place.thread)
#define blockIdx (::hax::emulation::place.block)
#define blockDim (::hax::emulation::place.block_size)
#define gridDim (::hax::emulation::place.grid_size)

#define HAX_SHARED(name, ...)                                                       \
  static constexpr char name##_key = 0;                                             \
  auto& name = *static_cast<std::add_pointer_t<std::type_identity_t<__VA_ARGS__>>>( \
      ::hax::emulation::BlockRunner::current().static_shared(                       \
          &name##_key, sizeof(std::type_identity_t<__VA_ARGS__>)))

namespace hax {

using Where = std::source_location;

struct alignas(8) float2 {  // NOLINT(readability-identifier-naming)
  float x, y;
};
struct alignas(16) float4 {  // NOLINT(readability-identifier-naming)
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

template <class T>
std::uint64_t pack(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T unpack(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Lane `source` of the shuffle's segment, or the caller's own when that lies outside.
template <class T>
T shuffle(unsigned mask, T value, int source, bool inside, const Where& where) {
  BlockRunner& runner = BlockRunner::current();
  runner.warp(WarpOp::shuffle, mask, pack(value), where);
  if (!inside) return value;
  return unpack<T>(runner.exchanged(mask, static_cast<unsigned>(source), where));
}

}  // namespace emulation

inline void __syncthreads(Where where = Where::current()) {
  emulation::BlockRunner::current().barrier(false, where);
}
inline int __syncthreads_count(int predicate, Where where = Where::current()) {
  return emulation::BlockRunner::current().barrier(predicate != 0, where);
}
inline int __syncthreads_or(int predicate, Where where = Where::current()) {
  return emulation::BlockRunner::current().barrier(predicate != 0, where) != 0;
}
inline int __syncthreads_and(int predicate, Where where = Where::current()) {
  return emulation::BlockRunner::current().barrier(predicate == 0, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, Where where = Where::current()) {
  emulation::BlockRunner::current().warp(emulation::WarpOp::sync, mask, 0, where);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, Where where = Where::current()) {
  const int lane = static_cast<int>(emulation::BlockRunner::current().lane());
  const int base = lane & ~(width - 1);
  return emulation::shuffle(mask, value, base + (source & (width - 1)), true, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 Where where = Where::current()) {
  const int lane = static_cast<int>(emulation::BlockRunner::current().lane());
  const int source = lane - static_cast<int>(delta);
  return emulation::shuffle(mask, value, source, source >= (lane & ~(width - 1)), where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   Where where = Where::current()) {
  const int lane = static_cast<int>(emulation::BlockRunner::current().lane());
  const int source = lane + static_cast<int>(delta);
  return emulation::shuffle(mask, value, source, source < (lane & ~(width - 1)) + width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  Where where = Where::current()) {
  const int lane = static_cast<int>(emulation::BlockRunner::current().lane());
  const int source = lane ^ lane_mask;
  return emulation::shuffle(mask, value, source, source < (lane & ~(width - 1)) + width, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, Where where = Where::current()) {
  emulation::BlockRunner& runner = emulation::BlockRunner::current();
  runner.warp(emulation::WarpOp::vote, mask, predicate != 0 ? 1 : 0, where);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) != 0 && runner.exchanged(mask, lane, where) != 0) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Where where = Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1;
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}

// Integers only: a sum of floats would depend on the order of the threads. Blocks of several
// launches may run at once, hence real atomic operations.
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "the sum would depend on the order of the threads");
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(address, &before, value, true,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (before > value && !__atomic_compare_exchange_n(address, &before, value, true,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}

// CUDA has these in the global namespace, for every type.
using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

namespace cuda {

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::BlockRunner::current().dynamic_shared());
}

}  // namespace cuda
}  // namespace hax
