#include "ops/cross_entropy/cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/elementwise/elementwise.h"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Expected {
  Tensor loss, grad;
};

// Loss and gradient by their definitions, for logits small enough to exponentiate as they are.
Expected naive(const Tensor& logits, const std::vector<std::int32_t>& labels, double divisor) {
  const std::int64_t rows = logits.size(0), classes = logits.size(1);
  Expected expected{Tensor::zeros({}, DType::float64),
                    Tensor::zeros(logits.shape(), DType::float64)};
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t label = labels[static_cast<std::size_t>(r)];
    if (label < 0) continue;
    const double* x = logits.data<double>() + r * classes;
    double* dx = expected.grad.data<double>() + r * classes;
    double sum = 0;
    for (std::int64_t v = 0; v < classes; ++v) sum += std::exp(x[v]);
    *expected.loss.data<double>() -= std::log(std::exp(x[label]) / sum) / divisor;
    for (std::int64_t v = 0; v < classes; ++v) {
      dx[v] = (std::exp(x[v]) / sum - (v == label ? 1 : 0)) / divisor;
    }
  }
  return expected;
}

std::vector<std::int32_t> some_labels(std::int64_t rows, std::int64_t classes) {
  RandomStream random({.seed = 5, .purpose = Purpose::test});
  std::vector<std::int32_t> labels;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto draw =
        static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(classes) + 2));
    labels.push_back(draw - 2);  // two of the values mask
  }
  return labels;
}

}  // namespace

TEST_CASE("cross_entropy and its gradient equal the definition") {
  for (const Shape& shape :
       {Shape{40, 100}, Shape{33, 17}, Shape{5, 1}, Shape{1, 259}, Shape{0, 9}}) {
    INFO(to_string(shape));
    const Tensor x = random_tensor(shape, 1, DType::float64, 2.0);
    const std::vector<std::int32_t> labels = some_labels(shape[0], shape[1]);
    const Expected expected = naive(x, labels, 12.5);
    for (const DType dtype : {DType::float64, DType::float32}) {
      const double tolerance = dtype == DType::float64 ? 1e-13 : 1e-6;
      const Var logits = Var::leaf(x.to(dtype));
      const Var loss = cross_entropy(logits, Tensor::from(labels), 12.5);
      CHECK(loss.shape() == Shape{});
      CHECK(relative_error(loss.value(), expected.loss) < tolerance);
      backward(loss);
      CHECK(relative_error(logits.grad(), expected.grad) < tolerance);
    }
  }
}

TEST_CASE("the gradient of cross_entropy scales with what arrives from above") {
  const Tensor x = random_tensor({4, 6}, 1);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{0, 5, -1, 2});
  const Var once = Var::leaf(x), twice = Var::leaf(x);
  backward(cross_entropy(once, labels, 3));
  backward(cross_entropy(twice, labels, 3), Tensor::full({}, -2.0, DType::float64));
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    CHECK(twice.grad().data<double>()[i] == doctest::Approx(-2 * once.grad().data<double>()[i]));
  }
}

TEST_CASE("cross_entropy stays finite and exact for huge logits and impossible classes") {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::from(std::vector<float>{3e38F, -3e38F, 0,  //
                                                   1e4F, 1e4F, -inf,  //
                                                   -500, -501, -502},
                                {3, 3});
  const Var logits = Var::leaf(x);
  const Var loss = cross_entropy(logits, Tensor::from(std::vector<std::int32_t>{0, 1, 0}), 1);
  const double last = std::log(1 + std::exp(-1.0) + std::exp(-2.0));
  CHECK(loss.value().item() == doctest::Approx(std::log(2.0) + last).epsilon(1e-6));
  backward(loss);
  const std::span<const float> grad = logits.grad().values<float>();
  const std::vector<float> first{grad.begin(), grad.begin() + 6};
  CHECK(first == std::vector<float>{0, 0, 0, 0.5F, -0.5F, 0});
  CHECK(grad[8] == doctest::Approx(std::exp(-2 - last)).epsilon(1e-6));
}

TEST_CASE(
    "a NaN among the logits of a labelled row reaches the loss; of a masked row it does not") {
  Tensor x = random_tensor({2, 5}, 1);
  x.data<double>()[7] = std::numeric_limits<double>::quiet_NaN();
  const auto loss = [&](std::vector<std::int32_t> labels) {
    return cross_entropy(x, Tensor::from(labels), 1).value().item();
  };
  CHECK(std::isnan(loss({0, 0})));
  CHECK(std::isfinite(loss({0, -1})));
}

TEST_CASE("shards of a batch add up to the batch's cross-entropy") {
  const Tensor x = random_tensor({10, 6}, 1);
  const Tensor labels = Tensor::from(some_labels(10, 6));
  const double whole = cross_entropy(x, labels, 7).value().item();
  const double first = cross_entropy(x.rows(0, 3), labels.rows(0, 3), 7).value().item();
  const double second = cross_entropy(x.rows(3, 10), labels.rows(3, 10), 7).value().item();
  CHECK(first + second == doctest::Approx(whole).epsilon(1e-14));
}

TEST_CASE("sample_accuracy is the share of right rows of each sample") {
  // Sample 0: right, wrong, masked. Sample 1: empty. Sample 2: only masked. Sample 3: ties.
  const Tensor logits = Tensor::from(std::vector<double>{1,  3,  2,  //
                                                         1,  3,  2,  //
                                                         9,  0,  0,  //
                                                         0,  0,  1,  //
                                                         5,  5,  1,  //
                                                         5,  5,  1,  //
                                                         -4, -2, -2},
                                     {7, 3});
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{1, 2, -1, -1, 0, 1, 1});
  const Sequences samples({0, 3, 3, 4, 7});
  for (const DType dtype : {DType::float64, DType::float32}) {
    const Tensor accuracy = sample_accuracy(logits.to(dtype), labels, samples);
    REQUIRE(accuracy.shape() == Shape{4});
    const double* share = accuracy.data<double>();
    CHECK(share[0] == 0.5);
    CHECK(std::isnan(share[1]));
    CHECK(std::isnan(share[2]));
    CHECK(share[3] == doctest::Approx(2.0 / 3));  // the first of equals wins
  }
}

TEST_CASE("sample_accuracy equals a search for the first largest logit") {
  const Tensor logits = random_tensor({200, 37}, 1, DType::float32);
  const std::vector<std::int32_t> labels = some_labels(200, 37);
  double asked = 0, right = 0;
  Tensor guess = logits.clone();  // half of the rows answered correctly
  for (std::int64_t r = 0; r < 200; ++r) {
    const std::int32_t label = labels[static_cast<std::size_t>(r)];
    if (label < 0) continue;
    float* row = guess.data<float>() + r * 37;
    if (r % 2 == 0) row[label] = 10;
    ++asked;
    right += std::max_element(row, row + 37) - row == label;
  }
  const Tensor accuracy = sample_accuracy(guess, Tensor::from(labels), Sequences::single(200));
  CHECK(accuracy.item() == right / asked);
  CHECK(right > asked / 4);
}

TEST_CASE("a row with a NaN is never right") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor logits =
      Tensor::from(std::vector<double>{nan, 1, 2, 0, nan, 2, nan, nan, nan}, {3, 3});
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{2, 1, 0});
  CHECK(sample_accuracy(logits, labels, Sequences::single(3)).item() == 0);
}

TEST_CASE("cross_entropy and sample_accuracy refuse what does not fit") {
  const Tensor x = random_tensor({2, 3}, 1);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{0, 3});
  CHECK(error_of([&] { cross_entropy(x, labels, 1); }) ==
        "cross_entropy: labels[1] is 3, the logits have 3 columns");
  CHECK(error_of([&] { sample_accuracy(x, labels, Sequences::single(2)); }) ==
        "sample_accuracy: labels[1] is 3, the logits have 3 columns");
  CHECK(error_of([&] { cross_entropy(x, Tensor::zeros({3}, DType::int32), 1); }) ==
        "cross_entropy: logits are [2, 3] and labels are [3], expected [R, V] and [R]");
  CHECK(error_of([&] { cross_entropy(x, Tensor::zeros({2}, DType::int64), 1); }) ==
        "cross_entropy: labels are int64, expected int32");
  CHECK(error_of([&] { cross_entropy(x, labels, 0); }) ==
        "cross_entropy: divisor is 0, expected a positive number");
  CHECK(!error_of([&] {
           sample_accuracy(x, Tensor::zeros({2}, DType::int32), Sequences::single(3));
         }).empty());
}

TEST_CASE("cross_entropy and sample_accuracy on CUDA equal the CPU, the same in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  for (const Shape& shape :
       {Shape{40, 100}, Shape{33, 17}, Shape{5, 1}, Shape{1, 259}, Shape{600, 3}, Shape{0, 9}}) {
    INFO(to_string(shape));
    const Tensor x = random_tensor(shape, 1, DType::float64, 2.0);
    const Tensor labels = Tensor::from(some_labels(shape[0], shape[1]));
    check_on_cuda(
        [&](std::span<const Var> in) { return scale(cross_entropy(in[0], labels, 12.5), 3.0); },
        {x});
    // Equal logits, too: the first of them counts.
    Tensor coarse = x.to(DType::float32);
    for (float& logit : std::span(coarse.data<float>(), static_cast<std::size_t>(x.numel()))) {
      logit = std::round(logit);
    }
    const std::int64_t rows = shape[0];
    const Sequences samples = Sequences::of_lengths({0, rows / 3, 0, rows - rows / 3});
    const Tensor expected = sample_accuracy(coarse, labels, samples);
    const Tensor found = sample_accuracy(coarse.to(kCuda), labels, samples).to(kCpu);
    for (std::int64_t i = 0; i < samples.count(); ++i) {
      const double p = found.data<double>()[i], q = expected.data<double>()[i];
      CHECK((p == q || (std::isnan(p) && std::isnan(q))));
    }
  }
  // Nothing can throw there: a label beyond the classes makes the loss NaN, and its row is wrong.
  const Tensor x = random_tensor({2, 4}, 1, DType::float32).to(kCuda);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{-1, 4});
  CHECK(std::isnan(cross_entropy(x, labels, 1).value().item()));
  CHECK(sample_accuracy(x, labels, Sequences::single(2)).item() == 0);
}
