// What keys are scored by, and what trains the scores, on CUDA: the CPU's running sums and ranking
// loss within rounding.
#include <doctest/doctest.h>

#include <cmath>

#include "ops/ranking_loss/ranking_loss.h"
#include "ops/running_sum/running_sum.h"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

// Sequences of one token and of none, lengths on both sides of every tile.
std::vector<Sequences> packs() {
  return {Sequences::single(1), Sequences::of_lengths({0, 3, 0}),
          Sequences::of_lengths({127, 1, 0, 129, 256, 30}, {200, 1, 5, 129, 300, 30})};
}

}  // namespace

TEST_CASE("normalized_running_sum on CUDA equals the CPU") {
  if (!cuda_is_here()) return;
  for (const Sequences& pack : packs()) {
    for (const NormMode mode : {NormMode::causal, NormMode::released}) {
      check_on_cuda(
          [&](std::span<const Var> in) { return normalized_running_sum(in[0], pack, mode).y; },
          {random_tensor({pack.tokens(), 6}, 14)});
    }
  }
}

TEST_CASE("normalized_running_sum on CUDA goes on from a sum as on the CPU") {
  if (!cuda_is_here()) return;
  const Sequences pack = packs().back();
  const Tensor x = random_tensor({pack.tokens(), 6}, 15).to(DType::float32);
  const Tensor initial = random_tensor({pack.count(), 6}, 16);
  const Tensor dfinal = random_tensor({pack.count(), 6}, 17);
  const auto run = [&](Device device) {
    const Var in = Var::leaf(x.to(device)), start = Var::leaf(initial.to(device));
    const RunningSumResult out = normalized_running_sum(in, pack, NormMode::causal, start);
    backward(out.final_sum, dfinal.to(device));
    return std::vector<Tensor>{out.final_sum.value().to(kCpu), in.grad().to(kCpu),
                               start.grad().to(kCpu)};
  };
  const std::vector<Tensor> here = run(kCpu), there = run(kCuda);
  for (std::size_t i = 0; i < here.size(); ++i) CHECK(same_bits(there[i], here[i]));
}

TEST_CASE("ranking_target and ranking_loss on CUDA equal the CPU") {
  if (!cuda_is_here()) return;
  const Sequences pack = Sequences::of_lengths({40, 3, 0, 200}, {50, 3, 2, 200});
  const Sequences groups = Sequences::of_lengths({5, 0, 1, 150});
  std::vector<std::int32_t> candidates{0, 39, 7, 49, 41, 1};
  for (std::int32_t c = 0; c < 150; ++c) candidates.push_back(c * 83 % 200);
  const Tensor positions = Tensor::from(candidates);
  const Tensor Q = random_tensor({pack.tokens(), 4}, 18), K = random_tensor({pack.tokens(), 4}, 19);
  const Tensor here = ranking_target(Q, K, positions, groups, pack);
  const Tensor there = ranking_target(Q.to(DType::float32).to(kCuda),
                                      K.to(DType::float32).to(kCuda), positions, groups, pack);
  CHECK(relative_error(there.to(kCpu).to(DType::float64), here) <= 1e-5);
  Tensor rounded = here.clone();  // some targets are equal
  for (std::int64_t c = 0; c < rounded.numel(); ++c)
    rounded.data<double>()[c] = std::round(rounded.data<double>()[c]);
  check_on_cuda(
      [&](std::span<const Var> in) {
        const Tensor target = rounded.to(in[0].dtype()).to(in[0].device());
        return ranking_loss(in[0], target, groups, 4);
      },
      {random_tensor({groups.tokens()}, 20)});
}

TEST_CASE("ranking_loss on CUDA: what is no number stays none") {
  if (!cuda_is_here()) return;
  const Sequences pack = Sequences::single(3), groups = Sequences::single(2);
  const Tensor x = Tensor::full({3, 2}, 1).to(kCuda);
  const Tensor target =
      ranking_target(x, x, Tensor::from(std::vector<std::int32_t>{1, 3}), groups, pack);
  CHECK(std::isnan(target.to(kCpu).data<float>()[1]));
  const Var loss = ranking_loss(Tensor::full({2}, 1).to(kCuda), target, groups, 1);
  CHECK(std::isnan(loss.value().to(kCpu).data<float>()[0]));
}
