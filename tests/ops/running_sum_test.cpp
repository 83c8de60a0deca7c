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
  backward(normalized_running_sum(leaf, sequences, mode).y, dy);
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

struct Carried {
  Tensor y, final_sum, dx, dinitial;
};

// The causal mode from an initial sum, in float64; gradients of sum(y dy) + sum(final_sum dfinal).
Carried naive_carried(const Tensor& x, const Tensor& initial, const Sequences& sequences,
                      const Tensor& dy, const Tensor& dfinal) {
  const auto dim = static_cast<std::size_t>(x.size(1));
  Carried r{Tensor::zeros(x.shape(), DType::float64), initial.clone(),
            Tensor::zeros(x.shape(), DType::float64), dfinal.clone()};
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::size_t first = static_cast<std::size_t>(s) * dim;
    double *sum = r.final_sum.data<double>() + first, *dinitial = r.dinitial.data<double>() + first;
    for (std::int64_t t = sequences.begin(s); t < sequences.end(s); ++t) {
      const std::size_t row = static_cast<std::size_t>(t) * dim;
      double square = 0;
      for (std::size_t f = 0; f < dim; ++f) {
        sum[f] += x.data<double>()[row + f];
        square += sum[f] * sum[f];
      }
      const double norm = std::sqrt(square);
      for (std::size_t f = 0; f < dim; ++f) r.y.data<double>()[row + f] = sum[f] / norm;
      for (std::size_t g = 0; g < dim; ++g) {
        double dsum = 0;
        for (std::size_t f = 0; f < dim; ++f) {
          const double same = f == g ? 1 / norm : 0;
          dsum += dy.data<double>()[row + f] * (same - sum[f] * sum[g] / (norm * norm * norm));
        }
        // sum is made of x up to t and of the initial sum.
        for (std::int64_t p = sequences.begin(s); p <= t; ++p) {
          r.dx.data<double>()[static_cast<std::size_t>(p) * dim + g] += dsum;
        }
        dinitial[g] += dsum;
      }
    }
    for (std::int64_t t = sequences.begin(s); t < sequences.end(s); ++t) {
      for (std::size_t f = 0; f < dim; ++f) {
        r.dx.data<double>()[static_cast<std::size_t>(t) * dim + f] +=
            dfinal.data<double>()[first + f];
      }
    }
  }
  return r;
}

// A scalar whose gradients with respect to the variables are the seeds, where defined.
Var loss_of(const std::vector<Var>& variables, const std::vector<Tensor>& seeds) {
  const Tensor zero = Tensor::zeros({}, DType::float64);
  return record("loss", zero, variables, [seeds](const Tensor&) { return Grads(seeds); });
}

// The op from an initial sum, and its gradients; either seed may be undefined.
Carried run_carried(const Tensor& x, const Tensor& initial, const Sequences& sequences,
                    const Tensor& dy, const Tensor& dfinal) {
  const Var from = Var::leaf(x), sum = Var::leaf(initial);
  const auto [y, final_sum] = normalized_running_sum(from, sequences, NormMode::causal, sum);
  backward(loss_of({y, final_sum}, {dy, dfinal}));
  return {y.value(), final_sum.value(), from.grad(), sum.grad()};
}

void check_close(const Carried& result, const Carried& expected, double tolerance) {
  CHECK(relative_error(result.y, expected.y) < tolerance);
  CHECK(relative_error(result.final_sum, expected.final_sum) < tolerance);
  CHECK(relative_error(result.dx, expected.dx) < tolerance);
  CHECK(relative_error(result.dinitial, expected.dinitial) < tolerance);
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
        CHECK(relative_error(normalized_running_sum(x, pack, mode).y.value(), y) < 1e-14);
        CHECK(relative_error(gradient(x, pack, mode, dy), dx) < 1e-12);
        const Tensor x32 = x.to(DType::float32), dy32 = dy.to(DType::float32);
        CHECK(relative_error(normalized_running_sum(x32, pack, mode).y.value(), y) < 1e-7);
        CHECK(relative_error(gradient(x32, pack, mode, dy32), dx) < 2e-6);
      }
    }
  }
}

TEST_CASE("the causal running sum of one feature is a sign with gradient zero") {
  const Tensor x = random_tensor({12, 1}, 1), dy = random_tensor({12, 1}, 2);
  const Sequences pack = Sequences::of_lengths({5, 7});
  CHECK(relative_error(normalized_running_sum(x, pack, NormMode::causal).y.value(),
                       naive(x, pack, NormMode::causal)) == 0);
  const Tensor dx = gradient(x, pack, NormMode::causal, dy);
  CHECK(relative_error(dx, Tensor::zeros(x.shape(), DType::float64)) < 1e-14);
}

TEST_CASE("a running sum of zero stays zero, with the gradient of the smallest norm") {
  const Tensor x = Tensor::zeros({3, 2}, DType::float64);
  const Tensor dy = Tensor::full({3, 2}, 2.0, DType::float64);
  for (const NormMode mode : kModes) {
    CHECK(same_bits(normalized_running_sum(x, Sequences::single(3), mode).y.value(), x));
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
  const Tensor y = normalized_running_sum(x, Sequences::single(1001), NormMode::causal).y.value();
  const double first = 1e8 + 1000, second = 1e8;
  CHECK(y.data<float>()[2000] ==
        static_cast<float>(first / std::sqrt(first * first + second * second)));
}

TEST_CASE("normalized_running_sum of a pack is that of its sequences, to the bit") {
  const Sequences pack = Sequences::of_lengths({33, 1, 0, 16}, {40, 1, 7, 20});
  const Tensor x = random_tensor({50, 7}, 1, DType::float32);
  const Tensor dy = random_tensor({50, 7}, 2, DType::float32);
  for (const NormMode mode : kModes) {
    const Tensor y = normalized_running_sum(x, pack, mode).y.value();
    const Tensor dx = gradient(x, pack, mode, dy);
    for (std::int64_t s = 0; s < pack.count(); ++s) {
      const std::int64_t begin = pack.begin(s), end = pack.end(s);
      const Sequences one = pack.slice(s, s + 1);
      CHECK(same_bits(normalized_running_sum(x.rows(begin, end), one, mode).y.value(),
                      y.rows(begin, end)));
      CHECK(same_bits(gradient(x.rows(begin, end), one, mode, dy.rows(begin, end)),
                      dx.rows(begin, end)));
    }
  }
}

TEST_CASE("normalized_running_sum from a sum to a sum equals the formula, with its gradients") {
  for (const Sequences& pack :
       {Sequences::of_lengths({9, 0, 1, 23}), Sequences::single(1), Sequences::single(0)}) {
    for (const std::int64_t dim : {2, 5, 16, 19}) {
      INFO(pack.tokens() << " tokens of " << dim);
      const Tensor x = random_tensor({pack.tokens(), dim}, 1).to(DType::float32);
      const Tensor dy = random_tensor(x.shape(), 2), none;
      const Tensor initial = random_tensor({pack.count(), dim}, 3);
      const Tensor dfinal = random_tensor(initial.shape(), 4);
      const Tensor x64 = x.to(DType::float64), dy32 = dy.to(DType::float32);
      const Tensor zero = Tensor::zeros(x.shape(), DType::float64);
      const Tensor zeros = Tensor::zeros(initial.shape(), DType::float64);
      const Carried both = naive_carried(x64, initial, pack, dy, dfinal);
      check_close(run_carried(x64, initial, pack, dy, dfinal), both, 1e-12);
      check_close(run_carried(x, initial, pack, dy32, dfinal), both, 2e-6);
      CHECK(run_carried(x, initial, pack, dy32, dfinal).final_sum.dtype() == DType::float64);
      check_close(run_carried(x64, initial, pack, dy, none),
                  naive_carried(x64, initial, pack, dy, zeros), 1e-12);
      check_close(run_carried(x64, initial, pack, none, dfinal),
                  naive_carried(x64, initial, pack, zero, dfinal), 1e-12);
    }
  }
}

TEST_CASE("both modes return the sum, and a gradient of it reaches every token") {
  const Sequences pack = Sequences::of_lengths({4, 0, 3}, {6, 2, 3});
  const Tensor x = random_tensor({7, 5}, 1), dfinal = random_tensor({3, 5}, 2);
  const Tensor zeros = Tensor::zeros({3, 5}, DType::float64);
  const Carried expected =
      naive_carried(x, zeros, pack, Tensor::zeros(x.shape(), DType::float64), dfinal);
  for (const NormMode mode : kModes) {
    const Var leaf = Var::leaf(x);
    const RunningSumResult result = normalized_running_sum(leaf, pack, mode);
    backward(loss_of({result.y, result.final_sum}, {{}, dfinal}));
    CHECK(relative_error(result.final_sum.value(), expected.final_sum) < 1e-14);
    CHECK(relative_error(leaf.grad(), expected.dx) < 1e-14);
  }
}

TEST_CASE("the causal running sum in pieces is that in one piece, to the bit") {
  const std::vector<std::int64_t> lengths{20, 0, 1, 9};
  const Sequences pack = Sequences::of_lengths(lengths);
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor x = random_tensor({30, 7}, 1, dtype);
    const RunningSumResult whole = normalized_running_sum(x, pack, NormMode::causal);
    for (const std::vector<std::int64_t>& steps :
         {std::vector<std::int64_t>{1}, {2}, {5, 0, 3}, {19, 1}, {20}}) {
      INFO("first piece " << steps[0]);
      std::vector<std::int64_t> done(4, 0);
      Var sum;  // none: the first piece starts from zero
      for (std::size_t step = 0; done != lengths; ++step) {
        std::vector<std::int64_t> count;
        std::vector<float> narrow;
        std::vector<double> wide;
        for (std::size_t s = 0; s < 4; ++s) {
          count.push_back(std::min(lengths[s] - done[s], steps[step % steps.size()]));
          const std::int64_t first = pack.begin(static_cast<std::int64_t>(s)) + done[s];
          const Tensor rows = x.rows(first, first + count[s]);
          for (std::int64_t i = 0; i < rows.numel(); ++i) {
            if (dtype == DType::float32) {
              narrow.push_back(rows.data<float>()[i]);
            } else {
              wide.push_back(rows.data<double>()[i]);
            }
          }
        }
        const Sequences pieces = Sequences::of_lengths(count);
        const Shape shape{pieces.tokens(), 7};
        const Tensor piece =
            dtype == DType::float32 ? Tensor::from(narrow, shape) : Tensor::from(wide, shape);
        const auto [y, final_sum] = normalized_running_sum(piece, pieces, NormMode::causal, sum);
        for (std::int64_t s = 0; s < 4; ++s) {
          const std::int64_t first = pack.begin(s) + done[static_cast<std::size_t>(s)];
          CHECK(same_bits(y.value().rows(pieces.begin(s), pieces.end(s)),
                          whole.y.value().rows(first, first + pieces.length(s))));
          done[static_cast<std::size_t>(s)] += pieces.length(s);
        }
        sum = final_sum;
      }
      CHECK(same_bits(sum.value(), whole.final_sum.value()));
    }
  }
}

TEST_CASE("gradients of the causal running sum through two pieces are those of one, to the bit") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor x = random_tensor({20, 6}, 1, dtype), dy = random_tensor({20, 6}, 2, dtype);
    const Tensor initial = random_tensor({1, 6}, 3), dfinal = random_tensor({1, 6}, 4);
    const Carried expected = run_carried(x, initial, Sequences::single(20), dy, dfinal);
    for (const std::int64_t cut : {0, 1, 7, 19, 20}) {
      INFO("cut at " << cut);
      const Var first = Var::leaf(x.rows(0, cut)), second = Var::leaf(x.rows(cut, 20));
      const Var start = Var::leaf(initial);
      const auto [y, sum] =
          normalized_running_sum(first, Sequences::single(cut), NormMode::causal, start);
      const auto [z, last] =
          normalized_running_sum(second, Sequences::single(20 - cut), NormMode::causal, sum);
      backward(loss_of({y, z, last}, {dy.rows(0, cut), dy.rows(cut, 20), dfinal}));
      CHECK(same_bits(first.grad(), expected.dx.rows(0, cut)));
      CHECK(same_bits(second.grad(), expected.dx.rows(cut, 20)));
      CHECK(same_bits(start.grad(), expected.dinitial));
    }
  }
}

TEST_CASE("the causal running sum does not look ahead and knows no padding") {
  const Tensor x = random_tensor({20, 6}, 1, DType::float32);
  const Tensor y = normalized_running_sum(x, Sequences::single(20), NormMode::causal).y.value();
  Tensor changed = x.clone();
  changed.data<float>()[12 * 6 + 1] += 1;
  const Tensor z =
      normalized_running_sum(changed, Sequences::single(20), NormMode::causal).y.value();
  CHECK(same_bits(z.rows(0, 12), y.rows(0, 12)));
  CHECK_FALSE(same_bits(z.rows(12, 13), y.rows(12, 13)));
  const Sequences padded({0, 20}, {31});
  CHECK(same_bits(normalized_running_sum(x, padded, NormMode::causal).y.value(), y));
  // The released one does, both.
  const Tensor r = normalized_running_sum(x, Sequences::single(20), NormMode::released).y.value();
  const Tensor q =
      normalized_running_sum(changed, Sequences::single(20), NormMode::released).y.value();
  CHECK_FALSE(same_bits(q.rows(0, 12), r.rows(0, 12)));
  CHECK_FALSE(same_bits(normalized_running_sum(x, padded, NormMode::released).y.value(), r));
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
  const auto error_from = [](const Tensor& initial, NormMode mode) {
    return error_of([&] {
      normalized_running_sum(Tensor::zeros({4, 2}), Sequences::of_lengths({3, 1}), mode, initial);
    });
  };
  CHECK(error_from(Tensor::zeros({2, 2}, DType::float64), NormMode::causal) == "");
  CHECK(error_from(Tensor::zeros({1, 2}, DType::float64), NormMode::causal) ==
        "normalized_running_sum: initial_sum is float64 [1, 2], expected float64 [S, N] = [2, 2]");
  CHECK(error_from(Tensor::zeros({2, 2}), NormMode::causal) ==
        "normalized_running_sum: initial_sum is float32 [2, 2], expected float64 [S, N] = [2, 2]");
  CHECK(error_from(Tensor::zeros({2, 2}, DType::float64), NormMode::released) ==
        "normalized_running_sum: initial_sum is given, but the released norms need the whole "
        "sequence, expected mode causal");
}
