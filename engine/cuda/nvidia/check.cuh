// Every call of the CUDA runtime is checked.
#pragma once

#include <cuda_runtime.h>

#include "engine/check.h"

namespace hax::cuda {

inline void require(cudaError_t status, const char* what) {
  check(status == cudaSuccess, "cuda: {}: {} ({})", what, cudaGetErrorString(status),
        cudaGetErrorName(status));
}

/// A stream, and what products on it need: never shared by two streams (blas.cu).
struct Queue {
  cudaStream_t stream = nullptr;
  void* products = nullptr;  ///< a cublasHandle_t, from the first product on
  void* workspace = nullptr;
};

/// Where this thread's work goes.
Queue& queue();
inline cudaStream_t stream() { return queue().stream; }
/// Of blas.cu.
void free_products(Queue& queue) noexcept;

}  // namespace hax::cuda
