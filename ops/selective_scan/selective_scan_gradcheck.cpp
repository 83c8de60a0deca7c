#include <cmath>

#include "ops/gradcheck.h"
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

}  // namespace

std::vector<GradCase> selective_scan_gradchecks() {
  const auto run = [](Sequences sequences, std::vector<std::int32_t> wanted = {}) {
    const Tensor rows = wanted.empty() ? Tensor{} : Tensor::from(wanted);
    return [=](std::span<const Var> in) {
      return selective_scan(in[0], in[1], in[2], in[3], in[4], in[5], sequences, rows);
    };
  };
  const Sequences pack = Sequences::of_lengths({4, 0, 19, 1});
  return {
      {"selective_scan", "four sequences", inputs(24, 3, 2, 24, 1), run(pack)},
      {"selective_scan", "some rows", inputs(24, 3, 2, 5, 10), run(pack, {0, 5, 6, 22, 23})},
      {"selective_scan", "two blocks of channels", inputs(3, 10, 3, 3, 20),
       run(Sequences::single(3))},
      {"selective_scan", "one state", inputs(18, 2, 1, 18, 30), run(Sequences::single(18))},
  };
}

}  // namespace hax
