#include "ops/slice_rows/slice_rows_kernels.h"

namespace hax {

void slice_rows_backward(Cpu, const Tensor& dy, std::int64_t begin, Tensor& dx) {
  const std::int64_t end = begin + dy.size(0);
  Tensor before = dx.rows(0, begin), middle = dx.rows(begin, end);
  Tensor after = dx.rows(end, dx.size(0));
  fill(before, 0);
  copy(middle, dy);
  fill(after, 0);
}

}  // namespace hax
