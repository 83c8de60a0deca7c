#include "engine/check.h"
#include "ops/matmul/matmul_kernels.h"

namespace hax {

void gemm(Cuda, const Tensor&, bool, const Tensor&, bool, bool, Tensor&) {
  throw Error("gemm: no CUDA kernel yet");
}

void split_columns(Cuda, const Tensor&, std::vector<Tensor>&) {
  throw Error("split_columns: no CUDA kernel yet");
}

void join_columns(Cuda, std::span<const Tensor>, const std::vector<std::int64_t>&, Tensor&) {
  throw Error("join_columns: no CUDA kernel yet");
}

void broadcast_rows(Cuda, const Tensor&, Tensor&) {
  throw Error("broadcast_rows: no CUDA kernel yet");
}

void sum_rows(Cuda, const Tensor&, Tensor&) { throw Error("sum_rows: no CUDA kernel yet"); }

}  // namespace hax
