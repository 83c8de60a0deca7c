#include <cmath>

#include "ops/elementwise/elementwise.h"
#include "ops/gradcheck.h"
#include "ops/matmul/matmul.h"
#include "ops/reshape/reshape.h"
#include "ops/selective_scan/selective_scan.h"

namespace hax {
namespace {

// u, dt > 0, A < 0, B, C, D.
std::vector<Tensor> inputs(std::int64_t tokens, std::int64_t dim, std::int64_t state,
                           std::int64_t rows, std::uint64_t seed) {
  std::vector<Tensor> in{
      gradcheck_tensor({tokens, dim}, seed),     gradcheck_tensor({tokens, dim}, seed + 1),
      gradcheck_tensor({dim, state}, seed + 2),  gradcheck_tensor({tokens, state}, seed + 3),
      gradcheck_tensor({rows, state}, seed + 4), gradcheck_tensor({dim}, seed + 5)};
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = 0.1 + std::abs(dt) / 2;
  }
  for (std::int64_t i = 0; i < in[2].numel(); ++i) {
    double& A = in[2].data<double>()[i];
    A = -0.1 - std::abs(A);
  }
  return in;
}

// The same, and an initial state for each of `sequences`.
std::vector<Tensor> with_state(std::vector<Tensor> in, std::int64_t sequences, std::uint64_t seed) {
  in.push_back(gradcheck_tensor({sequences, in[2].size(0), in[2].size(1)}, seed));
  return in;
}

// What a case looks at.
Var y(const ScanResult& result) { return result.y; }
Var final_state(const ScanResult& result) { return result.final_state; }
Var both(const ScanResult& result) {
  const auto weigh = [](const Var& x, std::uint64_t seed) {
    const std::int64_t count = x.value().numel();
    return matmul(gradcheck_tensor({1, count}, seed).to(x.dtype()).to(x.device()),
                  reshape(x, {count, 1}));
  };
  return add(weigh(result.y, 101), weigh(result.final_state, 102));
}

}  // namespace

std::vector<GradCase> selective_scan_gradchecks() {
  const auto run = [](auto look_at, Sequences sequences, std::vector<std::int32_t> wanted = {}) {
    const Tensor rows = wanted.empty() ? Tensor{} : Tensor::from(wanted);
    return [=](std::span<const Var> in) {
      const Var initial_state = in.size() > 6 ? in[6] : Var{};
      return look_at(
          selective_scan(in[0], in[1], in[2], in[3], in[4], in[5], sequences, rows, initial_state));
    };
  };
  const Sequences pack = Sequences::of_lengths({4, 0, 19, 1});
  const std::vector<std::int32_t> some{0, 5, 6, 22, 23};
  return {
      {"selective_scan", "four sequences", inputs(24, 3, 2, 24, 1), run(y, pack)},
      {"selective_scan", "some rows", inputs(24, 3, 2, 5, 10), run(y, pack, some)},
      {"selective_scan", "two blocks of channels", inputs(3, 10, 3, 3, 20),
       run(y, Sequences::single(3))},
      {"selective_scan", "one state", inputs(18, 2, 1, 18, 30), run(y, Sequences::single(18))},
      {"selective_scan", "from a state", with_state(inputs(24, 3, 2, 24, 40), 4, 46), run(y, pack)},
      {"selective_scan", "final state alone", inputs(24, 3, 2, 24, 50), run(final_state, pack)},
      {"selective_scan", "from state to state", with_state(inputs(24, 9, 9, 24, 60), 4, 66),
       run(both, pack)},
      {"selective_scan", "from state to state, some rows",
       with_state(inputs(24, 3, 2, 5, 70), 4, 76), run(both, pack, some)},
  };
}

}  // namespace hax
