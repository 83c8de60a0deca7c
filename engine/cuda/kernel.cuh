// The one header that kernels include: CUDA's language under nvcc, its emulation under another
// compiler. Page: docs/cuda.md
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "engine/bfloat16.h"
#include "engine/check.h"
#include "engine/cuda/runtime.h"
#include "engine/tensor.h"

#ifdef __CUDACC__

#include <cuda_runtime.h>

/// A variable of the block: HAX_SHARED(tile, float[32][33]) declares `tile`.
#define HAX_SHARED(name, ...) __shared__ std::type_identity_t<__VA_ARGS__> name

/// Before a loop: wholly unrolled, or by a factor.
#define HAX_UNROLL _Pragma("unroll")
#define HAX_TEXT(...) #__VA_ARGS__
#define HAX_UNROLL_BY(factor) _Pragma(HAX_TEXT(unroll factor))

namespace hax::cuda {

/// The dynamic shared memory of the block, as many bytes as the launch asked for, aligned to 16.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ uint4 hax_dynamic_shared[];
  return reinterpret_cast<T*>(hax_dynamic_shared);
}

}  // namespace hax::cuda

#else
#include "engine/cuda/emulation/language.h"
#define HAX_UNROLL
#define HAX_UNROLL_BY(factor)
#endif

#include "engine/cuda/launch.cuh"

namespace hax::cuda {

/// Threads of a warp, and the mask of all of them.
inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// ceil(a / b)
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Place of this thread in the whole one-dimensional grid, and the grid's number of threads:
/// for (i = global_thread(); i < count; i += global_threads()).
__device__ inline std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t global_threads() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

/// 2^x with a relative error below 2^-22, 0 where that is below the normal numbers: one instruction
/// where exp2f, which knows those, is several.
__device__ inline float fast_exp2(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = exp2f(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;
#endif
}

/// Sum over the warp, the same bits in every lane: lanes are paired in a fixed order.
template <class T>
__device__ T warp_sum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}
template <class T>
__device__ T warp_max(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

/// Sum over a one-dimensional block, the same bits in every thread. All threads of the block call
/// it; it ends with a barrier, so it may be called again at once.
template <class T>
__device__ T block_sum(T value) {
  HAX_SHARED(parts, T[kWarp]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_sum(value);
  if (warps == 1) return value;
  if (lane == 0) parts[warp] = value;
  __syncthreads();
  value = warp_sum(lane < warps ? parts[lane] : T{0});
  __syncthreads();
  return value;
}

/// A tensor's element as the float that kernels compute with, and back.
__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(Bfloat16 value) { return static_cast<float>(value); }
template <class T>
__device__ T from_float(float value) {
  return static_cast<T>(value);
}

/// Whether 16 bytes can be read there at once.
inline bool starts_at_quad(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

/// Calls f.operator()<float>() or <Bfloat16>(): what tensors of a kernel are stored as. `op` names
/// the caller in the error for other types.
template <class F>
void visit_storage(const char* op, DType dtype, F&& f) {
  if (dtype == DType::float32) return f.template operator()<float>();
  check(dtype == DType::bfloat16, "{}: {} tensors on cuda, expected float32 or bfloat16", op,
        name_of(dtype));
  f.template operator()<Bfloat16>();
}

}  // namespace hax::cuda
