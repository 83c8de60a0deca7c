#include "ops/vector_math.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using namespace hax;

namespace {

// Every 499th float of [low, high], in order of their bits (499 is odd: no mantissa bit stays), in
// one array: what is tested is the vectorised loop.
std::vector<float> floats_between(float low, float high) {
  std::vector<float> values;
  for (std::uint64_t bits = 0; bits < (1ULL << 32); bits += 499) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (x >= low && x <= high) values.push_back(x);
  }
  REQUIRE(values.size() > 1'000'000);
  return values;
}

template <class F, class Exact>
double worst_relative_error(float low, float high, F f, Exact exact) {
  const std::vector<float> x = floats_between(low, high);
  std::vector<float> y(x.size());
#pragma omp simd
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = f(x[i]);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = exact(static_cast<double>(x[i]));
    const double error = std::abs(static_cast<double>(y[i]) - expected) / expected;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kPayloadNan = std::bit_cast<float>(0xff9abcdeU);

}  // namespace

TEST_CASE("vector math keeps the errors it states") {
  const auto exp = [](double x) { return std::exp(x); };
  CHECK(worst_relative_error(
            -87.3F, 88.7F, [](float x) { return fast_exp(x); }, exp) <= 1.5e-7);
  const auto exp2 = [](double x) { return std::exp2(x); };
  CHECK(worst_relative_error(
            -126, 127, [](float x) { return fast_exp2(x); }, exp2) <= 1.5e-7);
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  CHECK(worst_relative_error(
            -87, 100, [](float x) { return fast_sigmoid(x); }, sigmoid) <= 3e-7);
  const auto tail = [](double x) { return std::log1p(std::exp(-std::abs(x))); };
  CHECK(worst_relative_error(
            -87, 87, [](float x) { return fast_log1p_exp_neg_abs(x); }, tail) <= 4e-7);
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  CHECK(worst_relative_error(
            -87, 100, [](float x) { return fast_softplus(x); }, softplus) <= 4e-7);
}

TEST_CASE("vector math at the edges") {
  CHECK(fast_exp(0.0F) == 1);
  CHECK(fast_exp(-87.34F) == 0);
  CHECK(fast_exp(-1e30F) == 0);
  CHECK(fast_exp(-kInf) == 0);
  CHECK(fast_exp(88.72283F) > 3.402e38F);
  CHECK(fast_exp(88.72283F) < kInf);
  CHECK(fast_exp(88.7229F) == kInf);
  CHECK(fast_exp(1e30F) == kInf);
  CHECK(fast_exp(kInf) == kInf);

  CHECK(fast_exp2(0.0F) == 1);
  CHECK(fast_exp2(-3.0F) == 0.125F);
  CHECK(fast_exp2(-127.0F) == 0);
  CHECK(fast_exp2(-1e30F) == 0);
  CHECK(fast_exp2(-kInf) == 0);

  CHECK(fast_sigmoid(-kInf) == 0);
  CHECK(fast_sigmoid(kInf) == 1);
  CHECK(fast_sigmoid(0.0F) == 0.5F);
  CHECK(fast_softplus(-kInf) == 0);
  CHECK(fast_softplus(kInf) == kInf);
  CHECK(fast_softplus(1e30F) == 1e30F);
  CHECK(fast_log1p_exp_neg_abs(-kInf) == 0);

  for (const float nan : {std::numeric_limits<float>::quiet_NaN(), -kInf * 0.0F, kPayloadNan}) {
    CHECK(std::isnan(fast_exp(nan)));
    CHECK(std::isnan(fast_exp2(nan)));
    CHECK(std::isnan(fast_sigmoid(nan)));
    CHECK(std::isnan(fast_log1p_exp_neg_abs(nan)));
    CHECK(std::isnan(fast_softplus(nan)));
  }
}

TEST_CASE("vector math in double is the standard library's") {
  for (const double x : {-745.0, -30.0, -1e-9, 0.0, 0.3, 5.0, 700.0}) {
    CHECK(fast_exp(x) == std::exp(x));
    CHECK(fast_sigmoid(x) == 1 / (1 + std::exp(-x)));
    CHECK(fast_softplus(x) == std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))));
  }
  CHECK(fast_exp2(-2.5) == std::exp2(-2.5));
}
