#include "ops/ranking_loss/ranking_loss.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The definition on padded sequences: zero vectors after the end, every query at or after the key.
Tensor naive_target(const Tensor& Q, const Tensor& K, const Tensor& candidates,
                    const Sequences& groups, const Sequences& sequences) {
  const std::int64_t dim = Q.size(1);
  Tensor target = Tensor::zeros({candidates.size(0)}, DType::float64);
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const auto element = [&](const Tensor& x, std::int64_t i, std::int64_t n) {
      return i < sequences.length(s) ? x.data<double>()[(sequences.begin(s) + i) * dim + n] : 0.0;
    };
    for (std::int64_t c = groups.begin(s); c < groups.end(s); ++c) {
      const std::int64_t j = candidates.data<std::int32_t>()[c];
      for (std::int64_t i = j; i < sequences.padded(s); ++i) {
        double dot = 0;
        for (std::int64_t n = 0; n < dim; ++n) dot += element(Q, i, n) * element(K, j, n);
        target.data<double>()[c] += sigmoid(dot);
      }
    }
  }
  return target;
}

// All c^2 ordered pairs, logarithms of probabilities as they stand.
double naive_loss(const Tensor& score, const Tensor& target, const Sequences& groups,
                  double divisor) {
  double total = 0;
  for (std::int64_t s = 0; s < groups.count(); ++s) {
    const double count = static_cast<double>(groups.length(s));
    for (std::int64_t a = groups.begin(s); a < groups.end(s); ++a) {
      for (std::int64_t b = groups.begin(s); b < groups.end(s); ++b) {
        const double* t = target.data<double>();
        const double want = t[a] > t[b] ? 1 : t[a] == t[b] ? 0.5 : 0;
        const double p = sigmoid(score.data<double>()[a] - score.data<double>()[b]);
        total -= (want * std::log(p) + (1 - want) * std::log(1 - p)) / (count * count);
      }
    }
  }
  return total / divisor;
}

// d/dscore_a: both ordered pairs of a with every other candidate.
Tensor naive_grad(const Tensor& score, const Tensor& target, const Sequences& groups,
                  double divisor) {
  Tensor grad = Tensor::zeros(score.shape(), DType::float64);
  for (std::int64_t s = 0; s < groups.count(); ++s) {
    const double count = static_cast<double>(groups.length(s));
    for (std::int64_t a = groups.begin(s); a < groups.end(s); ++a) {
      for (std::int64_t b = groups.begin(s); b < groups.end(s); ++b) {
        const double* t = target.data<double>();
        const double want = t[a] > t[b] ? 1 : t[a] == t[b] ? 0.5 : 0;
        const double p = sigmoid(score.data<double>()[a] - score.data<double>()[b]);
        grad.data<double>()[a] += 2 * (p - want) / (count * count * divisor);
      }
    }
  }
  return grad;
}

Tensor positions(std::vector<std::int32_t> values) { return Tensor::from(values); }

// About a quarter of the targets equal one another.
Tensor some_target(std::int64_t count) {
  Tensor target = random_tensor({count}, 21);
  for (std::int64_t c = 0; c < count; c += 3) target.data<double>()[c] = 0.25;
  return target;
}

}  // namespace

TEST_CASE("ranking_target equals the definition, padding included") {
  // One sequence longer than a tile, an empty one, one of a single token, one with padded
  // candidates, one without candidates.
  const Sequences sequences({0, 700, 700, 701, 738, 745}, {700, 2, 1, 90, 7});
  const Tensor candidates =
      positions({0, 699, 350, 255, 256, 257, 511, 13, 13, 0, 1, 0, 5, 36, 37, 89, 40});
  const Sequences groups({0, 9, 11, 12, 17, 17});
  for (const std::int64_t dim : {1, 16, 33}) {
    const Tensor Q = random_tensor({745, dim}, 1, DType::float64, 2.0);
    const Tensor K = random_tensor({745, dim}, 2);
    const Tensor expected = naive_target(Q, K, candidates, groups, sequences);
    CHECK(relative_error(ranking_target(Q, K, candidates, groups, sequences), expected) < 1e-13);
    const Tensor target =
        ranking_target(Q.to(DType::float32), K.to(DType::float32), candidates, groups, sequences);
    CHECK(target.dtype() == DType::float32);
    CHECK(relative_error(target, expected) < 1e-6);
  }
}

TEST_CASE("ranking_target of one sequence of one token") {
  const Tensor Q = random_tensor({1, 3}, 1), K = random_tensor({1, 3}, 2);
  const Sequences one = Sequences::single(1);
  CHECK(relative_error(ranking_target(Q, K, positions({0}), one, one),
                       naive_target(Q, K, positions({0}), one, one)) < 1e-15);
  const Tensor none = random_tensor({0, 3}, 1);
  CHECK(ranking_target(none, none, positions({}), Sequences(), Sequences()).shape() == Shape{0});
}

TEST_CASE("queries before a candidate do not count, whatever they hold") {
  Tensor Q = random_tensor({9, 4}, 1), K = random_tensor({9, 4}, 2);
  const Sequences nine = Sequences::single(9), two = Sequences::single(2);
  const Tensor before = ranking_target(Q, K, positions({5, 7}), two, nine);
  for (std::int64_t i = 0; i < 5 * 4; ++i) {
    Q.data<double>()[i] = std::numeric_limits<double>::quiet_NaN();
  }
  CHECK(same_bits(ranking_target(Q, K, positions({5, 7}), two, nine), before));
}

TEST_CASE("ranking_target of huge products counts 0 and 1") {
  const Tensor Q = Tensor::from(std::vector<float>{1e18F, -1e18F, 1e18F, 0}, {4, 1});
  const Tensor K = Tensor::from(std::vector<float>{1e18F, -1e18F, 1e18F, 0}, {4, 1});
  const Tensor target =
      ranking_target(Q, K, positions({0, 1, 2, 3}), Sequences::single(4), Sequences::single(4));
  const std::vector<float> expected{2.5F, 1.5F, 1.5F, 0.5F};
  CHECK(same_bits(target, Tensor::from(expected)));
}

TEST_CASE("ranking_loss and its gradient equal the mean over all ordered pairs") {
  for (const auto& lengths :
       std::vector<std::vector<std::int64_t>>{{32}, {1}, {2}, {0}, {}, {7, 0, 33, 1, 64, 17}}) {
    const Sequences groups = Sequences::of_lengths(lengths);
    const std::int64_t count = groups.tokens();
    INFO(count << " candidates in " << groups.count() << " groups");
    const Tensor score = random_tensor({count}, 1, DType::float64, 3.0);
    const Tensor target = some_target(count);
    const double expected = naive_loss(score, target, groups, 5);
    const Tensor expected_grad = naive_grad(score, target, groups, 5);
    for (const DType dtype : {DType::float64, DType::float32}) {
      const double tolerance = dtype == DType::float64 ? 1e-13 : 1e-6;
      const Var leaf = Var::leaf(score.to(dtype));
      const Var loss = ranking_loss(leaf, target.to(dtype), groups, 5);
      CHECK(loss.shape() == Shape{});
      CHECK(loss.value().item() == doctest::Approx(expected).epsilon(tolerance));
      backward(loss, Tensor::full({}, -3.0, dtype));
      Tensor scaled = leaf.grad().to(DType::float64).clone();
      for (std::int64_t c = 0; c < count; ++c) scaled.data<double>()[c] /= -3;
      CHECK(relative_error(scaled, expected_grad) < tolerance);
    }
  }
}

TEST_CASE("ranking_loss: one candidate costs log 2, and far-apart scores cost their distance") {
  const auto loss = [](std::vector<float> score, std::vector<float> target) {
    const Sequences groups = Sequences::single(static_cast<std::int64_t>(score.size()));
    return ranking_loss(Tensor::from(score), Tensor::from(target), groups, 1).value().item();
  };
  const double ln2 = std::numbers::ln2;
  CHECK(loss({7}, {1}) == doctest::Approx(ln2).epsilon(1e-7));
  // Wrong order: 2 of the 4 pairs cost the distance; right order: they cost nothing.
  CHECK(loss({1e6F, 0}, {1, 2}) == doctest::Approx((2e6 + 2 * ln2) / 4).epsilon(1e-6));
  CHECK(loss({1e6F, 0}, {2, 1}) == doctest::Approx(2 * ln2 / 4).epsilon(1e-6));
  CHECK(loss({3, 3}, {1, 1}) == doctest::Approx(ln2).epsilon(1e-6));
}

TEST_CASE("ranking_loss and its gradient are accurate for every distance of two scores") {
  for (double x = -100; x < 100; x += 0.37) {
    INFO(x);
    const double gap = static_cast<double>(static_cast<float>(x));
    const Tensor score = Tensor::from(std::vector<float>{static_cast<float>(x), 0});
    const Tensor target = Tensor::from(std::vector<float>{2, 1});
    const Var leaf = Var::leaf(score);
    const Var loss = ranking_loss(leaf, target, Sequences::single(2), 1);
    const double pair = gap < 0 ? -gap + std::log1p(std::exp(gap)) : std::log1p(std::exp(-gap));
    CHECK(loss.value().item() == doctest::Approx((pair + std::numbers::ln2) / 2).epsilon(2e-7));
    backward(loss);
    CHECK(std::abs(leaf.grad().data<float>()[0] - (sigmoid(gap) - 1) / 2) < 1e-7);
    CHECK(leaf.grad().data<float>()[1] == -leaf.grad().data<float>()[0]);
  }
}

TEST_CASE("ranking_target and ranking_loss refuse what does not fit") {
  const Tensor Q = random_tensor({4, 2}, 1), score = random_tensor({2}, 2);
  const Sequences four({0, 4}, {6}), two = Sequences::single(2);
  const auto target = [&](const Tensor& K, const Tensor& candidates, const Sequences& groups) {
    return error_of([&] { ranking_target(Q, K, candidates, groups, four); });
  };
  CHECK(target(Q, positions({0, 6}), two) ==
        "ranking_target: candidates[1] is 6, sequence 0 has positions 0..5");
  CHECK(target(Q, positions({-1, 0}), two) ==
        "ranking_target: candidates[0] is -1, sequence 0 has positions 0..5");
  CHECK(target(random_tensor({4, 3}, 1), positions({0, 1}), two) ==
        "ranking_target: Q is [4, 2] and K is [4, 3], expected [T, N] twice");
  CHECK(target(Q.to(DType::float32), positions({0, 1}), two) ==
        "ranking_target: Q is float64 and K is float32, expected equal types");
  CHECK(target(Q, Tensor::zeros({2}, DType::int64), two) ==
        "ranking_target: candidates are int64 [2], expected int32 [C]");
  CHECK(target(Q, positions({0, 1}), Sequences({0, 1, 2})) ==
        "ranking_target: 2 groups of candidates for 1 sequences, expected one each");
  CHECK(!target(Q, positions({0, 1, 2}), two).empty());
  CHECK(!error_of([&] { ranking_target(Q, Q, positions({0, 1}), two, two); }).empty());

  CHECK(error_of([&] { ranking_loss(score, random_tensor({3}, 1), two, 1); }) ==
        "ranking_loss: score is [2] and target is [3], expected [C] twice");
  CHECK(error_of([&] { ranking_loss(score, score.to(DType::float32), two, 1); }) ==
        "ranking_loss: score is float64 and target is float32, expected equal types");
  CHECK(error_of([&] { ranking_loss(score, score, two, -1); }) ==
        "ranking_loss: divisor is -1, expected a positive number");
  CHECK(!error_of([&] { ranking_loss(score, score, four, 1); }).empty());
}
