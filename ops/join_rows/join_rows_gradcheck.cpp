#include "ops/gradcheck.h"
#include "ops/join_rows/join_rows.h"

namespace hax {

std::vector<GradCase> join_rows_gradchecks() {
  const auto join = [](const char* what, std::vector<std::int64_t> past,
                       std::vector<std::int64_t> present) {
    const Sequences a = Sequences::of_lengths(past), b = Sequences::of_lengths(present);
    return GradCase{"join_rows",
                    what,
                    {gradcheck_tensor({a.tokens(), 3}, 1), gradcheck_tensor({b.tokens(), 3}, 2)},
                    [a, b](std::span<const Var> in) { return join_rows(in[0], a, in[1], b); }};
  };
  return {
      join("one sequence", {2}, {3}),
      join("nothing before", {0}, {4}),
      join("nothing after", {3}, {0}),
      join("a pack, empty ones among them", {2, 0, 1, 0}, {1, 3, 0, 0}),
  };
}

}  // namespace hax
