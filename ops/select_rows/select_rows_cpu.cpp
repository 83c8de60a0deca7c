#include <algorithm>
#include <cstring>

#include "engine/dispatch.h"
#include "ops/select_rows/select_rows_kernels.h"

namespace hax {

void select_rows(Cpu, const Tensor& x, const Tensor& rows, Tensor& y) {
  if (y.numel() == 0) return;
  const auto bytes = static_cast<std::size_t>(x.bytes() / x.size(0));
  const char* from = static_cast<const char*>(x.raw());
  char* to = static_cast<char*>(y.raw());
  for (const std::int32_t row : rows.values<std::int32_t>()) {
    std::memcpy(to, from + static_cast<std::size_t>(row) * bytes, bytes);
    to += bytes;
  }
}

void candidate_features(Cpu, const Tensor& features, const Tensor& positions,
                        const Sequences& groups, const Sequences& sequences, Tensor& y) {
  const std::int64_t width = features.size(1);
  visit_float(features.dtype(), [&]<class T>() {
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      for (std::int64_t c = groups.begin(s); c < groups.end(s); ++c) {
        const std::int64_t position = positions.data<std::int32_t>()[c];
        const bool padding = position >= sequences.length(s);
        const std::int64_t row =
            sequences.begin(s) + (padding ? sequences.length(s) - 1 : position);
        T* out = y.data<T>() + c * width;
        std::copy_n(features.data<T>() + row * width, width, out);
        if (padding) std::fill_n(out, width / 2, T(0));
      }
    }
  });
}

}  // namespace hax
