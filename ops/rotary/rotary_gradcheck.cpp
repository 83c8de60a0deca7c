#include "ops/gradcheck.h"
#include "ops/rotary/rotary.h"

namespace hax {

std::vector<GradCase> rotary_gradchecks() {
  const auto run = [](Sequences sequences, std::int64_t heads, std::vector<std::int64_t> first = {},
                      std::vector<std::int32_t> wanted = {}) {
    const Tensor rows = wanted.empty() ? Tensor{} : Tensor::from(wanted);
    return [=](std::span<const Var> in) {
      return rotary(in[0], sequences, heads, 100.0, first, rows);
    };
  };
  const Sequences pack = Sequences::of_lengths({3, 0, 5, 1});
  return {
      {"rotary", "two heads of six", {gradcheck_tensor({9, 12}, 1)}, run(pack, 2)},
      {"rotary", "a head of two", {gradcheck_tensor({9, 2}, 2)}, run(pack, 1)},
      {"rotary", "later positions", {gradcheck_tensor({9, 8}, 3)}, run(pack, 2, {70, 5, 0, 1000})},
      {"rotary", "some rows", {gradcheck_tensor({3, 4}, 4)}, run(pack, 1, {}, {1, 5, 8})},
  };
}

}  // namespace hax
