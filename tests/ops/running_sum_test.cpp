#include "ops/running_sum/running_sum.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

// The padded tensor as the released code has it: zeros after the end of a sequence.
std::vector<std::vector<double>> padded_sums(const Tensor& x, std::int64_t begin, std::int64_t end,
                                             std::int64_t padded) {
  const std::int64_t dim = x.size(1);
  std::vector<std::vector<double>> sums;
  std::vector<double> sum(static_cast<std::size_t>(dim), 0.0);
  for (std::int64_t t = begin; t < begin + padded; ++t) {
    for (std::int64_t f = 0; f < dim && t < end; ++f) sum[f] += x.data<double>()[t * dim + f];
    sums.push_back(sum);
  }
  return sums;
}

Tensor naive(const Tensor& x, const Sequences& sequences, NormMode mode) {
  const std::int64_t dim = x.size(1);
  Tensor y = Tensor::empty(x.shape(), DType::float64);
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s), length = sequences.length(s);
    const auto sums = padded_sums(x, begin, begin + length, sequences.padded(s));
    for (std::int64_t i = 0; i < length; ++i) {
      for (std::int64_t f = 0; f < dim; ++f) {
        double square = 0;
        if (mode == NormMode::causal) {
          for (const double other : sums[i]) square += other * other;
        } else {
          for (const auto& other : sums) square += other[f] * other[f];
        }
        y.data<double>()[(begin + i) * dim + f] = sums[i][f] / std::max(std::sqrt(square), 1e-12);
      }
    }
  }
  return y;
}

Tensor gradient(const Tensor& x, const Sequences& sequences, NormMode mode, const Tensor& dy) {
  const Var leaf = Var::leaf(x);
  backward(normalized_running_sum(leaf, sequences, mode), dy);
  return leaf.grad();
}

// The gradient from the Jacobian of the normalisation and of the sums, entry by entry.
Tensor naive_gradient(const Tensor& x, const Sequences& sequences, NormMode mode,
                      const Tensor& dy) {
  const std::int64_t dim = x.size(1);
  Tensor dx = Tensor::zeros(x.shape(), DType::float64);
  const bool causal = mode == NormMode::causal;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s), length = sequences.length(s);
    const std::int64_t padded = sequences.padded(s);
    const auto sums = padded_sums(x, begin, begin + length, padded);
    // d y[i, f] / d sums[j, g], for the pairs that meet in one norm.
    for (std::int64_t i = 0; i < length; ++i) {
      for (std::int64_t f = 0; f < dim; ++f) {
        double square = 0;
        for (std::int64_t k = 0; k < (causal ? dim : padded); ++k) {
          const double other = causal ? sums[i][k] : sums[k][f];
          square += other * other;
        }
        const double norm = std::sqrt(square);
        for (std::int64_t k = 0; k < (causal ? dim : padded); ++k) {
          const std::int64_t j = causal ? i : k, g = causal ? k : f;
          const double same = i == j && f == g ? 1 / norm : 0;
          const double slope = same - sums[i][f] * sums[j][g] / (norm * norm * norm);
          // sums[j, g] is made of x up to j.
          for (std::int64_t p = 0; p <= j && p < length; ++p) {
            dx.data<double>()[(begin + p) * dim + g] +=
                slope * dy.data<double>()[(begin + i) * dim + f];
          }
        }
      }
    }
  }
  return dx;
}

constexpr NormMode kModes[] = {NormMode::causal, NormMode::released};

}  // namespace

TEST_CASE("normalized_running_sum and its gradient equal the formula") {
  const std::vector<Sequences> packs = {
      Sequences::of_lengths({9, 0, 1, 23}), Sequences::of_lengths({9, 0, 1, 23}, {12, 5, 4, 23}),
      Sequences::single(1), Sequences::single(0), Sequences::of_lengths({0, 7}, {0, 30})};
  for (const NormMode mode : kModes) {
    for (const Sequences& pack : packs) {
      for (const std::int64_t dim : {1, 5, 16, 19}) {
        if (mode == NormMode::causal && dim == 1) continue;  // a sign: below
        INFO(pack.tokens() << " tokens of " << dim << ", mode " << static_cast<int>(mode));
        const Tensor x = random_tensor({pack.tokens(), dim}, 1);
        const Tensor dy = random_tensor(x.shape(), 2);
        const Tensor y = naive(x, pack, mode), dx = naive_gradient(x, pack, mode, dy);
        CHECK(relative_error(normalized_running_sum(x, pack, mode).value(), y) < 1e-14);
        CHECK(relative_error(gradient(x, pack, mode, dy), dx) < 1e-12);
        const Tensor x32 = x.to(DType::float32), dy32 = dy.to(DType::float32);
        CHECK(relative_error(normalized_running_sum(x32, pack, mode).value(), y) < 1e-7);
        CHECK(relative_error(gradient(x32, pack, mode, dy32), dx) < 2e-6);
      }
    }
  }
}

TEST_CASE("the causal running sum of one feature is a sign with gradient zero") {
  const Tensor x = random_tensor({12, 1}, 1), dy = random_tensor({12, 1}, 2);
  const Sequences pack = Sequences::of_lengths({5, 7});
  CHECK(relative_error(normalized_running_sum(x, pack, NormMode::causal).value(),
                       naive(x, pack, NormMode::causal)) == 0);
  const Tensor dx = gradient(x, pack, NormMode::causal, dy);
  CHECK(relative_error(dx, Tensor::zeros(x.shape(), DType::float64)) < 1e-14);
}

TEST_CASE("a running sum of zero stays zero, with the gradient of the smallest norm") {
  const Tensor x = Tensor::zeros({3, 2}, DType::float64);
  const Tensor dy = Tensor::full({3, 2}, 2.0, DType::float64);
  for (const NormMode mode : kModes) {
    CHECK(same_bits(normalized_running_sum(x, Sequences::single(3), mode).value(), x));
    const Tensor dx = gradient(x, Sequences::single(3), mode, dy);
    // The first token is in all three sums.
    CHECK(dx.data<double>()[0] == doctest::Approx(6e12));
    CHECK(dx.data<double>()[5] == doctest::Approx(2e12));
  }
}

TEST_CASE("the running sum adds in double") {
  // In float32 the ones would be lost against the first number.
  Tensor x = Tensor::full({1001, 2}, 1.0);
  x.data<float>()[0] = 1e8F;
  x.data<float>()[1] = 0.0F;
  for (std::int64_t t = 0; t < 1001; ++t) x.data<float>()[2 * t + 1] = t == 1000 ? 1e8F : 0.0F;
  const Tensor y = normalized_running_sum(x, Sequences::single(1001), NormMode::causal).value();
  const double first = 1e8 + 1000, second = 1e8;
  CHECK(y.data<float>()[2000] ==
        static_cast<float>(first / std::sqrt(first * first + second * second)));
}

TEST_CASE("normalized_running_sum of a pack is that of its sequences, to the bit") {
  const Sequences pack = Sequences::of_lengths({33, 1, 0, 16}, {40, 1, 7, 20});
  const Tensor x = random_tensor({50, 7}, 1, DType::float32);
  const Tensor dy = random_tensor({50, 7}, 2, DType::float32);
  for (const NormMode mode : kModes) {
    const Tensor y = normalized_running_sum(x, pack, mode).value();
    const Tensor dx = gradient(x, pack, mode, dy);
    for (std::int64_t s = 0; s < pack.count(); ++s) {
      const std::int64_t begin = pack.begin(s), end = pack.end(s);
      const Sequences one = pack.slice(s, s + 1);
      CHECK(same_bits(normalized_running_sum(x.rows(begin, end), one, mode).value(),
                      y.rows(begin, end)));
      CHECK(same_bits(gradient(x.rows(begin, end), one, mode, dy.rows(begin, end)),
                      dx.rows(begin, end)));
    }
  }
}

TEST_CASE("the causal running sum does not look ahead and knows no padding") {
  const Tensor x = random_tensor({20, 6}, 1, DType::float32);
  const Tensor y = normalized_running_sum(x, Sequences::single(20), NormMode::causal).value();
  Tensor changed = x.clone();
  changed.data<float>()[12 * 6 + 1] += 1;
  const Tensor z = normalized_running_sum(changed, Sequences::single(20), NormMode::causal).value();
  CHECK(same_bits(z.rows(0, 12), y.rows(0, 12)));
  CHECK_FALSE(same_bits(z.rows(12, 13), y.rows(12, 13)));
  const Sequences padded({0, 20}, {31});
  CHECK(same_bits(normalized_running_sum(x, padded, NormMode::causal).value(), y));
  // The released one does, both.
  const Tensor r = normalized_running_sum(x, Sequences::single(20), NormMode::released).value();
  const Tensor q =
      normalized_running_sum(changed, Sequences::single(20), NormMode::released).value();
  CHECK_FALSE(same_bits(q.rows(0, 12), r.rows(0, 12)));
  CHECK_FALSE(same_bits(normalized_running_sum(x, padded, NormMode::released).value(), r));
}

TEST_CASE("normalized_running_sum refuses shapes and types that do not fit") {
  CHECK(error_of([] {
          normalized_running_sum(Tensor::zeros({4}), Sequences::single(4), NormMode::causal);
        }) == "normalized_running_sum: x is float32 [4], expected float32 or float64 [T, N]");
  CHECK(error_of([] {
          normalized_running_sum(Tensor::zeros({4, 2}, DType::int32), Sequences::single(4),
                                 NormMode::causal);
        }) == "normalized_running_sum: x is int32 [4, 2], expected float32 or float64 [T, N]");
  CHECK(error_of([] {
          normalized_running_sum(Tensor::zeros({4, 2}), Sequences::single(5), NormMode::causal);
        }).starts_with("normalized_running_sum: "));
}
