#include "engine/check.h"
#include "ops/slice_rows/slice_rows_kernels.h"

namespace hax {

void slice_rows_backward(Cuda, const Tensor&, std::int64_t, Tensor&) {
  throw Error("slice_rows_backward: no CUDA kernel yet");
}

}  // namespace hax
