// What decides which keys are seen, on CUDA: the CPU's bins and sets to the bit, its running sums
// and ranking loss within rounding.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
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

void check_same_set(const KeySet& there, const KeySet& here) {
  const KeySet back = to_device(there, kCpu);
  CHECK(same_bits(back.death, here.death));
  if (!here.banded()) return;
  CHECK(same_bits(back.expire, here.expire));
  CHECK(same_bits(back.order, here.order));
  validate(back);
}

Tensor bins_of(std::int64_t tokens, std::int64_t bins, std::uint64_t seed) {
  const Tensor x = random_tensor({tokens}, seed).to(DType::float32);
  Tensor bin = Tensor::empty({tokens}, DType::int64);
  for (std::int64_t t = 0; t < tokens; ++t) {
    bin.data<std::int64_t>()[t] =
        static_cast<std::int64_t>(std::floor(x.data<float>()[t] * static_cast<float>(bins)));
  }
  return bin;
}

}  // namespace

TEST_CASE("lsh_bins on CUDA equal the CPU's") {
  if (!cuda_is_here()) return;
  for (const Sequences& pack : packs()) {
    for (const LshRule rule : {LshRule::sign_bits, LshRule::argmax}) {
      for (const LshCenter center : {LshCenter::causal, LshCenter::sequence, LshCenter::none}) {
        for (const NormMode norm : {NormMode::causal, NormMode::released}) {
          const Tensor x = random_tensor({pack.tokens(), 5}, 3).to(DType::float32);
          const Tensor hash = random_tensor({5, 7}, 4).to(DType::float32);
          const Tensor here = lsh_bins(x, hash, pack, rule, center, norm);
          const Tensor there = lsh_bins(x.to(kCuda), hash.to(kCuda), pack, rule, center, norm);
          CHECK(same_bits(there.to(kCpu), here));
        }
      }
    }
  }
}

TEST_CASE("lsh_bins on CUDA go on from a carried mean as on the CPU") {
  if (!cuda_is_here()) return;
  const Sequences pack = packs().back();
  const Tensor hash = random_tensor({33, 62}, 5).to(DType::float32);
  CarriedMean here, there;
  for (std::uint64_t piece = 0; piece < 2; ++piece) {
    const Tensor x = random_tensor({pack.tokens(), 33}, 6 + piece).to(DType::float32);
    const auto bins = [&](Device device, CarriedMean& mean) {
      return lsh_bins(x.to(device), hash.to(device), pack, LshRule::sign_bits, LshCenter::causal,
                      NormMode::causal, &mean)
          .to(kCpu);
    };
    CHECK(same_bits(bins(kCuda, there), bins(kCpu, here)));
    CHECK(same_bits(there.sum.to(kCpu), here.sum));
    CHECK(there.rows == here.rows);
  }
}

TEST_CASE("lsh_keys on CUDA equal the CPU's, tiles merged too") {
  if (!cuda_is_here()) return;
  std::vector<Sequences> all = packs();
  all.push_back(Sequences::of_lengths({513, 0, 1024, 1}));
  all.push_back(Sequences::of_lengths({1500, 7, 2100}));
  for (const Sequences& pack : all) {
    for (const std::int64_t bins : {1, 3, 500}) {
      for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{4}, std::int64_t{5000}}) {
        const Tensor bin = bins_of(pack.tokens(), bins, 8);
        check_same_set(lsh_keys(bin.to(kCuda), bin.to(kCuda), pack, keys),
                       lsh_keys(bin, bin, pack, keys));
      }
    }
  }
}

TEST_CASE("key_selection on CUDA equals the CPU: random, rising, falling and tied scores") {
  if (!cuda_is_here()) return;
  std::vector<Sequences> all = packs();
  all.push_back(Sequences::of_lengths({255, 700, 1}));
  for (const Sequences& pack : all) {
    const std::int64_t tokens = pack.tokens();
    std::vector<float> rising(static_cast<std::size_t>(tokens));
    std::iota(rising.begin(), rising.end(), -3.0F);
    const std::vector<float> falling(rising.rbegin(), rising.rend());
    Tensor tied = random_tensor({tokens}, 9).to(DType::float32);
    for (std::int64_t t = 0; t < tokens; ++t)
      tied.data<float>()[t] = std::round(2 * tied.data<float>()[t]);
    for (const Tensor& score : {random_tensor({tokens}, 10).to(DType::float32),
                                Tensor::from(rising), Tensor::from(falling), tied}) {
      for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{16}, std::int64_t{300}}) {
        check_same_set(key_selection_keys(score.to(kCuda), pack, keys),
                       key_selection_keys(score, pack, keys));
      }
    }
  }
  // More keys than a block has memory for.
  const Tensor score = random_tensor({2700}, 11).to(DType::float32);
  check_same_set(key_selection_keys(score.to(kCuda), Sequences::single(2700), 2600),
                 key_selection_keys(score, Sequences::single(2700), 2600));
}

TEST_CASE("key_selection on CUDA ranks NaN below all numbers") {
  if (!cuda_is_here()) return;
  const Tensor score = Tensor::from(std::vector<float>{1, std::nanf(""), -3, std::nanf(""), 2});
  const KeySet keys = to_device(key_selection_keys(score.to(kCuda), Sequences::single(5), 2), kCpu);
  constexpr std::int32_t kForever = KeySet::kForever;
  CHECK(
      same_bits(keys.death, Tensor::from(std::vector<std::int32_t>{kForever, 2, 4, 3, kForever})));
}

TEST_CASE("unite on CUDA equals the CPU") {
  if (!cuda_is_here()) return;
  const Sequences pack = packs().back();
  const Tensor score = random_tensor({pack.tokens()}, 12).to(DType::float32);
  const Tensor bin = bins_of(pack.tokens(), 4, 13);
  check_same_set(unite(key_selection_keys(score.to(kCuda), pack, 5),
                       lsh_keys(bin.to(kCuda), bin.to(kCuda), pack, 6)),
                 unite(key_selection_keys(score, pack, 5), lsh_keys(bin, bin, pack, 6)));
}

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
