#include <algorithm>

#include "ops/key_set/key_set.h"
#include "ops/key_set/key_set_kernels.h"

namespace hax {

void interval_deaths(Cpu, const Sequences& sequences, const IntervalRule& rule, Tensor& death) {
  auto* out = death.data<std::int32_t>();
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t j = 0; j < sequences.length(s); ++j) {
      *out++ =
          static_cast<std::int32_t>(std::min<std::int64_t>(rule.death_of(j), KeySet::kForever));
    }
  }
}

void unite_deaths(Cpu, const Tensor& a, const Tensor& b, Tensor& death) {
  const auto* x = a.data<std::int32_t>();
  const auto* y = b.data<std::int32_t>();
  auto* out = death.data<std::int32_t>();
  const std::int64_t tokens = death.numel();
#pragma omp simd
  for (std::int64_t t = 0; t < tokens; ++t) out[t] = std::max(x[t], y[t]);
}

}  // namespace hax
