#include "ops/gradcheck.h"
#include "ops/slice_rows/slice_rows.h"

namespace hax {

std::vector<GradCase> slice_rows_gradchecks() {
  const auto slice = [](const char* what, Shape shape, std::int64_t begin, std::int64_t end) {
    return GradCase{
        "slice_rows", what, {gradcheck_tensor(shape, 1)}, [begin, end](std::span<const Var> in) {
          return slice_rows(in[0], begin, end);
        }};
  };
  return {
      slice("rows in the middle", {5, 3}, 1, 4),
      slice("all rows", {3, 2}, 0, 3),
      slice("no rows", {3, 2}, 2, 2),
      slice("rank 1", {4}, 3, 4),
      slice("rank 3", {3, 2, 2}, 0, 1),
  };
}

}  // namespace hax
