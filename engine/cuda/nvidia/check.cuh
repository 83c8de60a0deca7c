// Every call of the CUDA runtime is checked.
#pragma once

#include <cuda_runtime.h>

#include "engine/check.h"

namespace hax::cuda {

inline void require(cudaError_t status, const char* what) {
  check(status == cudaSuccess, "cuda: {}: {} ({})", what, cudaGetErrorString(status),
        cudaGetErrorName(status));
}

/// The one stream that all work is queued on.
cudaStream_t stream();

}  // namespace hax::cuda
