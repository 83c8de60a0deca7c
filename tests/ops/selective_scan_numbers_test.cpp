// Decays at the ends of what numbers can hold, and how exact they are.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/selective_scan/selective_scan_kernels.h"
#include "ops/selective_scan/selective_scan_vector.h"
#include "tests/ops/selective_scan_support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::scan_op;

TEST_CASE("selective_scan forgets everything at a step that decays all") {
  // dt A far below the smallest exponent: the states before must vanish, not turn into rubbish.
  Inputs in = to(random_inputs(4, 3, 2, 4), DType::float32);
  fill(in[2], -1e20);
  const Sequences pack = Sequences::single(4);
  const Tensor y = run_scan(in, pack).y.value();
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t e = 0; e < 3; ++e) {
      const auto at = [&](std::size_t i, std::int64_t j) { return in[i].data<float>()[j]; };
      const double drive = at(1, t * 3 + e) * at(0, t * 3 + e);
      const double dot = at(3, t * 2) * at(4, t * 2) + at(3, t * 2 + 1) * at(4, t * 2 + 1);
      CHECK(y.data<float>()[t * 3 + e] ==
            doctest::Approx(drive * dot + at(5, e) * at(0, t * 3 + e)).epsilon(1e-5));
    }
  }
  in[1].data<float>()[2] = std::nanf("");
  const Tensor bad = run_scan(in, pack).y.value();
  CHECK(std::isnan(bad.data<float>()[2]));
  CHECK(bad.data<float>()[1] == y.data<float>()[1]);
}

TEST_CASE("selective_scan computes the same numbers beside a step that decays all") {
  // One large step takes its chunk and its block of channels through the longer form of the decays.
  const Sequences pack = Sequences::single(70);
  const Inputs in = to(random_inputs(70, 19, 6, 70), DType::float32);
  const Tensor dy = random_tensor({70, 19}, 7, DType::float32);
  Inputs changed = in;
  changed[1] = in[1].clone();
  for (const std::int64_t t : {3, 40}) changed[1].data<float>()[t * 19 + 5] = 1e6F;
  const Result before = run(in, pack, {}, dy), after = run(changed, pack, {}, dy);
  const auto differing = [](const Tensor& x, const Tensor& y) {
    std::vector<std::int64_t> columns;
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      if (x.data<float>()[i] != y.data<float>()[i]) columns.push_back(i % x.size(1));
    }
    std::ranges::sort(columns);
    columns.erase(std::ranges::unique(columns).begin(), columns.end());
    return columns;
  };
  const std::vector<std::int64_t> only_its_channel{5};
  CHECK(differing(before.y, after.y) == only_its_channel);
  CHECK(differing(before.gradients[0], after.gradients[0]) == only_its_channel);
  CHECK(differing(before.gradients[1], after.gradients[1]) == only_its_channel);
}

TEST_CASE("decays of selective_scan are exact to 1.5e-7 in both forms") {
  using Vector = scan::Vec<float>;
  const scan::Decay<float, true> decay;
  const scan::Decay<float, false> decay_short;
  const Vector one = Vector{} + 1;
  const auto of = [&](float x) { return decay(one, Vector{} + x)[0]; };
  double worst = 0;
  std::int64_t count = 0, disagree = 0;
  for (std::uint32_t bits = 0x20000000U; bits < 0x42fc0000U; bits += 997) {  // 1e-19 .. 126
    const float x = -std::bit_cast<float>(bits);
    const double exact = std::exp2(static_cast<double>(x));
    worst = std::max(worst, std::abs(of(x) / exact - 1));
    if (x >= scan::kLeastExponent) disagree += of(x) != decay_short(one, Vector{} + x)[0];
    ++count;
  }
  CHECK(count > 500'000);
  CHECK(worst <= 1.5e-7);
  CHECK(disagree == 0);
  CHECK(of(0) == 1);
  for (const float x : {-127.0F, -128.0F, -300.0F, -1e9F, -1e20F, -3e38F}) CHECK(of(x) == 0);
  CHECK(std::isnan(of(std::nanf(""))));
}

TEST_CASE("gradients of selective_scan that have died out are zero, not denormal") {
  // Only the last of many tokens is read: what arrives at the first is 0.7^1000 of it.
  const std::int64_t tokens = 1000;
  Inputs in = to(with_state(random_inputs(tokens, 19, 6, 1), 1), DType::float32);
  fill(in[1], 1);
  fill(in[2], std::log(0.7F));
  const Tensor last = Tensor::from<std::int32_t>({static_cast<std::int32_t>(tokens) - 1});
  const Result result =
      run(in, Sequences::single(tokens), last, random_tensor({1, 19}, 7, DType::float32));
  CHECK(same_bits(result.gradients[6], Tensor::zeros(result.gradients[6].shape())));
  const Tensor& du = result.gradients[0];
  CHECK(same_bits(du.rows(0, 500), Tensor::zeros({500, 19})));
  for (std::int64_t i = 0; i < du.numel(); ++i) {
    const float x = du.data<float>()[i];
    REQUIRE(std::fpclassify(x) != FP_SUBNORMAL);
    if (i >= (tokens - 100) * 19) REQUIRE(x != 0);
  }
}
