#include "ops/gate/gate.h"
#include "ops/gradcheck.h"

namespace hax {

std::vector<GradCase> gate_gradchecks() {
  const auto make = [](const char* what, std::int64_t rows, std::int64_t dim) {
    return GradCase{"gate",
                    what,
                    {gradcheck_tensor({rows, dim}, 1), gradcheck_tensor({rows, dim}, 2),
                     gradcheck_tensor({dim}, 3), gradcheck_tensor({rows, dim}, 4)},
                    [](std::span<const Var> in) { return gate(in[0], in[1], in[2], in[3]); },
                    {"s", "a", "E", "z"}};
  };
  return {make("5 rows of 7", 5, 7), make("one row", 1, 17), make("one channel", 6, 1)};
}

}  // namespace hax
