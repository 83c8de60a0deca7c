// Products through cuBLAS.
#include "engine/cuda/blas.h"

#include <cublas_v2.h>

#include "engine/cuda/nvidia/check.cuh"
#include "engine/cuda/runtime.h"

namespace hax::cuda {
namespace {

void require(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, "cuda: {}: {}", what, cublasGetStatusString(status));
}

// One handle a stream. Its workspace is ours and stays where it is: cuBLAS asks for no memory in a
// capture, and replays find what the capture was given. The same workspace and one stream are also
// what makes its results repeatable.
cublasHandle_t handle() {
  Queue& on = queue();  // throws where there is no device
  if (on.products != nullptr) return static_cast<cublasHandle_t>(on.products);
  cublasHandle_t made = nullptr;
  require(cublasCreate(&made), "cublasCreate");
  on.products = made;
  require(cublasSetStream(made, on.stream), "cublasSetStream");
  // What NVIDIA recommends: 32 MiB from Hopper on, 4 MiB before.
  const std::size_t bytes = (device_info().major >= 9 ? std::size_t{32} : std::size_t{4}) << 20;
  on.workspace = system_allocate(bytes);
  check(on.workspace != nullptr, "out of memory on cuda: cuBLAS needs {} bytes", bytes);
  require(cublasSetWorkspace(made, on.workspace, bytes), "cublasSetWorkspace");
  require(cublasSetPointerMode(made, CUBLAS_POINTER_MODE_HOST), "cublasSetPointerMode");
  // Parts of a sum are put together in float32, too.
  require(cublasSetMathMode(
              made, static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                              CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
          "cublasSetMathMode");
  return made;
}

}  // namespace

void free_products(Queue& queue) noexcept {
  if (queue.products != nullptr) (void)cublasDestroy(static_cast<cublasHandle_t>(queue.products));
  if (queue.workspace != nullptr) system_free(queue.workspace);
}

void detail::prepare_products() { (void)handle(); }

// cuBLAS counts columns first: what we store as C is C^T to it, and C^T = op(B)^T op(A)^T.
void detail::multiply(const Product& p) {
  const auto library_type = [](DType d) { return d == DType::float32 ? CUDA_R_32F : CUDA_R_16BF; };
  const cudaDataType type = library_type(p.dtype), result = library_type(p.result);
  const cublasComputeType_t compute = p.dtype == DType::float32 && tf32_allowed()
                                          ? CUBLAS_COMPUTE_32F_FAST_TF32
                                          : CUBLAS_COMPUTE_32F;
  const cublasOperation_t first = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasStatus_t status =
      p.batch == 1
          ? cublasGemmEx_64(handle(), first, second, p.n, p.m, p.k, &p.alpha, p.b, type, p.ldb, p.a,
                            type, p.lda, &p.beta, p.c, result, p.ldc, compute, CUBLAS_GEMM_DEFAULT)
          : cublasGemmStridedBatchedEx_64(handle(), first, second, p.n, p.m, p.k, &p.alpha, p.b,
                                          type, p.ldb, p.stride_b, p.a, type, p.lda, p.stride_a,
                                          &p.beta, p.c, result, p.ldc, p.stride_c, p.batch, compute,
                                          CUBLAS_GEMM_DEFAULT);
  check(status == CUBLAS_STATUS_SUCCESS, "cuda: {} products of {} x {} x {}: {}", p.batch, p.m, p.n,
        p.k, cublasGetStatusString(status));
}

}  // namespace hax::cuda
