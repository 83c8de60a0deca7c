#include <algorithm>

#include "ops/key_set/key_set_kernels.h"

namespace hax {

void unite_deaths(Cpu, const Tensor& a, const Tensor& b, Tensor& death) {
  const auto* x = a.data<std::int32_t>();
  const auto* y = b.data<std::int32_t>();
  auto* out = death.data<std::int32_t>();
  const std::int64_t tokens = death.numel();
#pragma omp simd
  for (std::int64_t t = 0; t < tokens; ++t) out[t] = std::max(x[t], y[t]);
}

}  // namespace hax
