#include <algorithm>

#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/embedding/embedding_kernels.h"

namespace hax {

void embedding_forward(Cpu, const Tensor& table, const Tensor& index, Tensor& y) {
  visit_float(table.dtype(), [&]<class T>() {
    const std::int64_t rows = table.size(0), dim = table.size(1), count = index.size(0);
    const std::int32_t* at = index.data<std::int32_t>();
    const T* from = table.data<T>();
    T* to = y.data<T>();
    parallel_rows(count, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        check(0 <= at[t] && at[t] < rows, "embedding: index[{}] is {}, the table has rows 0..{}", t,
              at[t], rows - 1);
        const T* row = from + at[t] * dim;
        std::copy(row, row + dim, to + t * dim);
      }
    });
  });
}

void embedding_backward(Cpu, const Tensor& dy, const Tensor& index, Tensor& dtable) {
  visit_float(dy.dtype(), [&]<class T>() {
    const std::int64_t dim = dy.size(1), count = index.size(0);
    const std::int32_t* at = index.data<std::int32_t>();
    const T* from = dy.data<T>();
    fill(dtable, 0);
    T* to = dtable.data<T>();
    // Pieces of the columns, since rows of the table meet in any order. No sum changes.
    constexpr std::int64_t kColumnsWorthAPiece = 16;
    const auto columns = [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = 0; t < count; ++t) {
        const T* in = from + t * dim;
        T* row = to + at[t] * dim;
#pragma omp simd
        for (std::int64_t d = begin; d < end; ++d) row[d] += in[d];
      }
    };
    parallel_rows(dim, columns, count < 2 * kRowsWorthAPiece ? dim : kColumnsWorthAPiece);
  });
}

}  // namespace hax
