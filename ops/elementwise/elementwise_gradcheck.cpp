#include <utility>

#include "ops/elementwise/elementwise.h"
#include "ops/gradcheck.h"

namespace hax {
namespace {

// Calls visit(f) with a default-constructed functor of every alternative of a list.
template <class Function, class Visit>
void for_each_function(Visit visit) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (visit(std::variant_alternative_t<I, Function>{}), ...);
  }
  (std::make_index_sequence<std::variant_size_v<Function>>{});
}

}  // namespace

std::vector<GradCase> elementwise_gradchecks() {
  std::vector<GradCase> cases;
  // Far enough from 0, where relu has no derivative.
  Tensor points = gradcheck_tensor({5, 7}, 1, 2.0);
  for (std::int64_t i = 0; i < points.numel(); ++i) {
    double& x = points.data<double>()[i];
    x += x < 0 ? -0.1 : 0.1;
  }
  for_each_function<functor::UnaryFunction>([&](auto f) {
    cases.push_back({f.name, "5 x 7", {points}, [f](std::span<const Var> in) {
                       return elementwise(f, in[0]);
                     }});
  });
  cases.push_back(
      {"scale", "by -2.5", {points}, [](std::span<const Var> in) { return scale(in[0], -2.5); }});

  for_each_function<functor::BinaryFunction>([&](auto f) {
    const auto run = [f](std::span<const Var> in) { return elementwise(f, in[0], in[1]); };
    const auto tensor = [](Shape shape, std::uint64_t seed) {
      return gradcheck_tensor(shape, seed);
    };
    cases.push_back({f.name, "equal shapes", {tensor({2, 3, 3}, 2), tensor({2, 3, 3}, 3)}, run});
    cases.push_back({f.name, "a row for all", {tensor({2, 3, 5}, 4), tensor({5}, 5)}, run});
    cases.push_back({f.name, "one row", {tensor({1, 4}, 6), tensor({4}, 7)}, run});
    cases.push_back({f.name, "of itself", {tensor({4}, 8)}, [f](std::span<const Var> in) {
                       return elementwise(f, in[0], in[0]);
                     }});
  });
  return cases;
}

}  // namespace hax
