#include "ops/elementwise/elementwise.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

struct UnaryCase {
  const char* name;
  std::function<Var(const Var&)> op;
  std::function<double(double)> formula;
};

struct BinaryCase {
  const char* name;
  std::function<Var(const Var&, const Var&)> op;
  std::function<double(double, double)> formula;
};

const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> cases = {
      {"silu", silu, [](double x) { return x / (1 + std::exp(-x)); }},
      {"softplus", softplus, [](double x) { return std::log1p(std::exp(x)); }},
      {"relu", relu, [](double x) { return std::max(x, 0.0); }},
      {"sigmoid", sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"clamp", [](const Var& x) { return clamp(x, -0.5, 0.75); },
       [](double x) { return std::min(std::max(x, -0.5), 0.75); }},
      {"neg_exp", neg_exp, [](double x) { return -std::exp(x); }},
      {"scale", [](const Var& x) { return scale(x, -1.75); }, [](double x) { return -1.75 * x; }},
  };
  return cases;
}

const std::vector<BinaryCase>& binary_cases() {
  static const std::vector<BinaryCase> cases = {
      {"add", add, [](double a, double b) { return a + b; }},
      {"mul", mul, [](double a, double b) { return a * b; }},
      {"mul_silu", mul_silu, [](double a, double b) { return a * b / (1 + std::exp(-b)); }},
  };
  return cases;
}

Tensor naive(const UnaryCase& c, const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), DType::float64);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    y.data<double>()[i] = c.formula(x.data<double>()[i]);
  }
  return y;
}

Tensor naive(const BinaryCase& c, const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty(a.shape(), DType::float64);
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    y.data<double>()[i] = c.formula(a.data<double>()[i], b.data<double>()[i % b.numel()]);
  }
  return y;
}

// The gradients of two leaves under the seed dy.
Grads gradients(const BinaryCase& c, const Tensor& a, const Tensor& b, const Tensor& dy) {
  const Var x = Var::leaf(a), y = Var::leaf(b);
  backward(c.op(x, y), dy);
  return {x.grad(), y.grad()};
}

// Relative error, also for tiny numbers; infinities must be equal.
void check_values(const Tensor& y, const std::vector<double>& expected, double tolerance) {
  REQUIRE(y.numel() == static_cast<std::int64_t>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double value = y.data<double>()[i];
    INFO(value << " instead of " << expected[i]);
    const double error = std::abs(value - expected[i]);
    CHECK((value == expected[i] || error <= tolerance * std::abs(expected[i])));
  }
}

constexpr double kInf = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("every elementwise function has a formula here") {
  CHECK(unary_cases().size() == std::variant_size_v<functor::UnaryFunction>);
  CHECK(binary_cases().size() == std::variant_size_v<functor::BinaryFunction>);
}

TEST_CASE("elementwise functions of one number equal their formulas") {
  for (const UnaryCase& c : unary_cases()) {
    INFO(c.name);
    for (const Shape& shape : {Shape{}, Shape{1}, Shape{5, 7}, Shape{2, 3, 3, 11}, Shape{0, 4}}) {
      const Tensor x = random_tensor(shape, 1, DType::float64, 3.0);
      const Tensor expected = naive(c, x);
      const Var y = c.op(x);
      CHECK(y.shape() == shape);
      CHECK(relative_error(y.value(), expected) < 1e-14);
      CHECK(relative_error(c.op(x.to(DType::float32)).value(), expected) < 1e-6);
    }
  }
}

TEST_CASE("elementwise functions of one number at the edges") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor x = Tensor::from<double>({-kInf, -1e4, -80.0, 0.0, 80.0, 1e4, kInf}).to(dtype);
    const auto values = [&](const auto& op) { return op(x).value().to(DType::float64); };
    const double tolerance = dtype == DType::float32 ? 1e-6 : 1e-14;
    const double tiny = std::exp(-80.0);
    check_values(values(softplus), {0, 0, tiny, std::log(2.0), 80, 1e4, kInf}, tolerance);
    check_values(values(sigmoid), {0, 0, tiny, 0.5, 1, 1, 1}, tolerance);
    check_values(values(relu), {0, 0, 0, 0, 80, 1e4, kInf}, tolerance);

    const Var leaf = Var::leaf(Tensor::from<double>({-1e4, -80.0, 0.0, 80.0, 1e4}).to(dtype));
    const auto slope = [&](const auto& op) {
      const Var at = Var::leaf(leaf.value());
      backward(op(at), Tensor::full({5}, 1.0, dtype));
      return at.grad().to(DType::float64);
    };
    check_values(slope(silu), {0, -79 * tiny, 0.5, 1, 1}, tolerance);
    check_values(slope(softplus), {0, tiny, 0.5, 1, 1}, tolerance);
    check_values(slope(sigmoid), {0, tiny, 0.25, tiny, 0}, tolerance);
    check_values(slope(relu), {0, 0, 0, 1, 1}, tolerance);
  }
  const Tensor nan = Tensor::full({3}, std::nan(""), DType::float32);
  for (const UnaryCase& c : unary_cases()) {
    INFO(c.name);
    CHECK(std::isnan(c.op(nan).value().data<float>()[2]));
  }
}

TEST_CASE("elementwise functions of two numbers equal their formulas") {
  struct Shapes {
    Shape a, b;
  };
  for (const BinaryCase& c : binary_cases()) {
    INFO(c.name);
    for (const auto& [shape_a, shape_b] :
         {Shapes{{}, {}}, Shapes{{13}, {13}}, Shapes{{4, 9}, {4, 9}}, Shapes{{4, 9}, {9}},
          Shapes{{2, 3, 5, 17}, {17}}, Shapes{{1, 6}, {6}}, Shapes{{0, 6}, {6}},
          Shapes{{3, 0}, {0}}}) {
      const Tensor a = random_tensor(shape_a, 1), b = random_tensor(shape_b, 2);
      const Tensor expected = naive(c, a, b);
      const Var y = c.op(a, b);
      CHECK(y.shape() == shape_a);
      CHECK(relative_error(y.value(), expected) < 1e-14);
      const Var single = c.op(a.to(DType::float32), b.to(DType::float32));
      CHECK(relative_error(single.value(), expected) < 1e-6);

      const Tensor dy = random_tensor(shape_a, 3);
      const Grads exact = gradients(c, a, b, dy);
      CHECK(exact[1].shape() == shape_b);
      const Grads rounded =
          gradients(c, a.to(DType::float32), b.to(DType::float32), dy.to(DType::float32));
      CHECK(relative_error(rounded[0], exact[0]) < 1e-6);
      CHECK(relative_error(rounded[1], exact[1]) < 1e-6);
    }
  }
}

TEST_CASE("the gradient of a row used for all rows is the column sum") {
  const Tensor a = random_tensor({37, 5}, 1), b = random_tensor({5}, 2);
  const Tensor dy = random_tensor({37, 5}, 3);
  Tensor sum = Tensor::zeros({5}, DType::float64), weighted = Tensor::zeros({5}, DType::float64);
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    sum.data<double>()[i % 5] += dy.data<double>()[i];
    weighted.data<double>()[i % 5] += dy.data<double>()[i] * a.data<double>()[i];
  }
  CHECK(relative_error(gradients(binary_cases()[0], a, b, dy)[1], sum) < 1e-14);
  CHECK(relative_error(gradients(binary_cases()[1], a, b, dy)[1], weighted) < 1e-14);

  // No rows: nothing reaches b.
  const Grads none =
      gradients(binary_cases()[1], random_tensor({0, 5}, 1), b, random_tensor({0, 5}, 3));
  CHECK(same_bits(none[1], Tensor::zeros({5}, DType::float64)));
}

TEST_CASE("an elementwise gradient is computed for those inputs only that want one") {
  struct Count : Watcher {
    void on_backward(const OpEvent&, std::span<const Tensor> dy,
                     std::span<const Tensor> dx) override {
      for (const Tensor& tensor : dx) defined.push_back(tensor.defined());
      if (dx.size() == 2 && dx[0].defined() && dx[1].defined()) {
        shared = dx[0].raw() == dy[0].raw() && dx[1].raw() == dy[0].raw();
      }
    }
    std::vector<bool> defined;
    bool shared = false;
  };
  const Tensor a = random_tensor({3, 4}, 1), b = random_tensor({3, 4}, 2);
  const Tensor dy = random_tensor({3, 4}, 3);
  const auto watch = [&](const Var& y) {
    Count count;
    const Watch watching(count);
    backward(y, dy);
    return count;
  };
  const Var x = Var::leaf(a), z = Var::leaf(b);
  CHECK(watch(mul_silu(x, b)).defined == std::vector<bool>{true, false});
  CHECK(watch(mul_silu(a, z)).defined == std::vector<bool>{false, true});
  CHECK_FALSE(watch(mul(x, z)).shared);
  CHECK(watch(add(x, z)).shared);
}

TEST_CASE("add passes its gradient on unharmed when an input is used again") {
  const Tensor a = random_tensor({2, 3}, 1), dy = random_tensor({2, 3}, 2);
  const Var x = Var::leaf(a), z = Var::leaf(a);
  const Var inner = scale(x, 2.0);
  backward(add(add(inner, z), inner), dy);
  Tensor four = dy.clone();
  for (std::int64_t i = 0; i < 6; ++i) four.data<double>()[i] *= 4;
  CHECK(same_bits(x.grad(), four));
  CHECK(same_bits(z.grad(), dy));
}

TEST_CASE("elementwise refuses shapes and types that do not fit") {
  const Tensor x = random_tensor({2, 4}, 1);
  CHECK(error_of([&] { add(x, random_tensor({5}, 2)); }) ==
        "add: a is [2, 4] and b is [5], expected equal shapes, or [..., D] and [D]");
  CHECK(error_of([&] { mul(random_tensor({4}, 2), x); }) ==
        "mul: a is [4] and b is [2, 4], expected equal shapes, or [..., D] and [D]");
  CHECK(error_of([&] { mul_silu(x, random_tensor({2}, 2)); }) ==
        "mul_silu: a is [2, 4] and b is [2], expected equal shapes, or [..., D] and [D]");
  CHECK(error_of([&] {
          mul(x, random_tensor({2, 4}, 2, DType::float32));
        }) == "mul: a is float64 and b is float32, expected float32 or float64 for both");
  CHECK(error_of([&] { silu(Tensor::zeros({2}, DType::int32)); }) ==
        "silu: x is int32, expected float32 or float64");
}
