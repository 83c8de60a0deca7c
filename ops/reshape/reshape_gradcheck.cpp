#include "ops/reshape/reshape.h"

#include "ops/gradcheck.h"

namespace hax {

std::vector<GradCase> reshape_gradchecks() {
  return {
      {"reshape",
       "[2, 6] to [3, 4]",
       {gradcheck_tensor({2, 6}, 1)},
       [](std::span<const Var> in) {
         return reshape(in[0], {3, 4});
       }},
      {"reshape",
       "a column to a vector",
       {gradcheck_tensor({5, 1}, 2)},
       [](std::span<const Var> in) { return reshape(in[0], {5}); }},
  };
}

}  // namespace hax
