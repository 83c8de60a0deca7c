#include "engine/check.h"
#include "ops/lsh/lsh_kernels.h"

namespace hax {

void hash_rows(Cuda, const Tensor&, const Tensor&, const Sequences&, LshRule, LshCenter, NormMode,
               CarriedMean*, Tensor&) {
  throw Error("hash_rows: no CUDA kernel yet");
}

void band_of_bins(Cuda, const Tensor&, const Sequences&, std::int64_t, Tensor&, Tensor&, Tensor&) {
  throw Error("band_of_bins: no CUDA kernel yet");
}

}  // namespace hax
