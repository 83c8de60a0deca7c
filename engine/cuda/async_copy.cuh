// Copies from global to shared memory that need no registers and that a thread need not wait for at
// once: cp.async. The emulation makes them as late as it may, when the thread waits.
#pragma once

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {

/// Starts a copy of 4, 8 or 16 bytes; both addresses are multiples of that.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#ifdef __CUDACC__
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(kBytes)
                 : "memory");
  }
#else
  emulation::BlockRunner::current().copy_later(shared, global, kBytes);
#endif
}

/// What this thread started since the last call is one group from here on.
__device__ __forceinline__ void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulation::BlockRunner::current().end_copy_group();
#endif
}

/// Returns when all but the last kPending groups of this thread are there; a barrier then shows
/// them to the others.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#else
  emulation::BlockRunner::current().wait_for_copies(kPending);
#endif
}

}  // namespace hax::cuda
