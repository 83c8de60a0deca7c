#include "ops/embedding/embedding.h"
#include "ops/gradcheck.h"

namespace hax {

std::vector<GradCase> embedding_gradchecks() {
  const auto lookup = [](const char* what, Shape table, std::vector<std::int32_t> index) {
    return GradCase{
        "embedding",
        what,
        {gradcheck_tensor(table, 1)},
        [index = Tensor::from(index)](std::span<const Var> in) { return embedding(in[0], index); }};
  };
  return {
      lookup("rows repeated and rows never taken", {5, 3}, {4, 0, 4, 2, 4, 0}),
      lookup("one row", {1, 4}, {0}),
      lookup("no index", {3, 2}, {}),
  };
}

}  // namespace hax
