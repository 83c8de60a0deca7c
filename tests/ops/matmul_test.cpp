#include "ops/matmul/matmul.h"

#include <doctest/doctest.h>

#include <array>

#include "ops/elementwise/elementwise.h"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

Tensor transposed(const Tensor& x) {
  const std::int64_t rows = x.size(0), columns = x.size(1);
  Tensor y = Tensor::empty({columns, rows}, DType::float64);
  const double* from = x.data<double>();
  double* to = y.data<double>();
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) to[j * rows + i] = from[i * columns + j];
  }
  return y;
}

// The definition: one dot product an element.
Tensor naive(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.size(0), depth = a.size(1), n = b.size(1);
  Tensor c = Tensor::empty({m, n}, DType::float64);
  const double *x = a.data<double>(), *y = b.data<double>();
  double* z = c.data<double>();
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double dot = 0;
      for (std::int64_t k = 0; k < depth; ++k) dot += x[i * depth + k] * y[k * n + j];
      z[i * n + j] = dot;
    }
  }
  return c;
}

Tensor naive_linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  Tensor y = naive(x, transposed(w));
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    y.data<double>()[i] += bias.data<double>()[i % w.size(0)];
  }
  return y;
}

Tensor column_sums(const Tensor& x) {
  return naive(Tensor::full({1, x.size(0)}, 1.0, DType::float64), x).reshape({x.size(1)});
}

// M, K, N: ordinary, prime, vectors, and every size 0 in turn.
constexpr std::array<std::array<std::int64_t, 3>, 9> kSizes{{{6, 64, 16},
                                                             {1, 1, 1},
                                                             {17, 31, 13},
                                                             {1, 40, 7},
                                                             {29, 5, 1},
                                                             {130, 67, 259},
                                                             {0, 3, 4},
                                                             {3, 0, 4},
                                                             {3, 4, 0}}};

}  // namespace

TEST_CASE("matmul and its gradients equal the definition, with every pair of transpose flags") {
  for (const auto& [m, depth, n] : kSizes) {
    const Tensor a = random_tensor({m, depth}, 1), b = random_tensor({depth, n}, 2);
    const Tensor dc = random_tensor({m, n}, 3);
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        for (const DType dtype : {DType::float64, DType::float32}) {
          INFO(m << " " << depth << " " << n << " " << transpose_a << transpose_b << " "
                 << name_of(dtype));
          const double tolerance = dtype == DType::float64 ? 1e-13 : 2e-6;
          const Var va = Var::leaf((transpose_a ? transposed(a) : a).to(dtype));
          const Var vb = Var::leaf((transpose_b ? transposed(b) : b).to(dtype));
          const Var c = matmul(va, vb, transpose_a, transpose_b);
          CHECK(relative_error(c.value(), naive(a, b)) < tolerance);

          backward(c, dc.to(dtype));
          const Tensor da = naive(dc, transposed(b)), db = naive(transposed(a), dc);
          CHECK(relative_error(va.grad(), transpose_a ? transposed(da) : da) < tolerance);
          CHECK(relative_error(vb.grad(), transpose_b ? transposed(db) : db) < tolerance);
        }
      }
    }
  }
}

TEST_CASE("linear and its gradients equal the definition") {
  for (const auto& [rows, in, out] : kSizes) {
    const Tensor x = random_tensor({rows, in}, 1), w = random_tensor({out, in}, 2);
    const Tensor bias = random_tensor({out}, 3), dy = random_tensor({rows, out}, 4);
    for (const DType dtype : {DType::float64, DType::float32}) {
      INFO(rows << " " << in << " " << out << " " << name_of(dtype));
      const double tolerance = dtype == DType::float64 ? 1e-13 : 2e-6;
      const Var vx = Var::leaf(x.to(dtype)), vw = Var::leaf(w.to(dtype));
      const Var vb = Var::leaf(bias.to(dtype));
      CHECK(relative_error(linear(vx, vw).value(), naive(x, transposed(w))) < tolerance);
      const Var y = linear(vx, vw, vb);
      CHECK(relative_error(y.value(), naive_linear(x, w, bias)) < tolerance);

      backward(y, dy.to(dtype));
      CHECK(relative_error(vx.grad(), naive(dy, w)) < tolerance);
      CHECK(relative_error(vw.grad(), naive(transposed(dy), x)) < tolerance);
      CHECK(relative_error(vb.grad(), column_sums(dy)) < tolerance);
    }
  }
}

TEST_CASE("linears equal their layers one by one, gradients included") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const double tolerance = dtype == DType::float32 ? 1e-5 : 1e-13;
    for (const std::int64_t rows : {0, 1, 7, 64}) {
      INFO(name_of(dtype) << ", " << rows << " rows");
      const std::vector<std::int64_t> widths{8, 1, 16, 3};
      const Var x = Var::leaf(random_tensor({rows, 24}, 1, dtype));
      const Var x_alone = Var::leaf(random_tensor({rows, 24}, 1, dtype));
      std::vector<Var> weights, weights_alone;
      for (std::size_t i = 0; i < widths.size(); ++i) {
        weights.push_back(Var::leaf(random_tensor({widths[i], 24}, 10 + i, dtype)));
        weights_alone.push_back(Var::leaf(weights[i].value().clone()));
      }
      const std::vector<Var> together = linears(x, weights);
      REQUIRE(together.size() == widths.size());
      Var sum, sum_alone;
      for (std::size_t i = 0; i < widths.size(); ++i) {
        const Var alone = linear(x_alone, weights_alone[i]);
        CHECK(relative_error(together[i].value(), alone.value()) <= tolerance);
        if (i == 1) continue;  // an output that nobody uses
        const Tensor dy = random_tensor({rows, widths[i]}, 20 + i, dtype);
        const auto weighted = [&](const Var& y) { return matmul(y, dy, true); };
        const Tensor ones = Tensor::full({widths[i], 1}, 1, dtype);
        const auto total = [&](const Var& y) {
          return matmul(ones, matmul(weighted(y), ones), true);
        };
        sum = sum.defined() ? add(sum, total(together[i])) : total(together[i]);
        sum_alone = sum_alone.defined() ? add(sum_alone, total(alone)) : total(alone);
      }
      backward(sum);
      backward(sum_alone);
      CHECK(relative_error(x.grad(), x_alone.grad()) <= 10 * tolerance);
      for (const std::size_t i : {0U, 2U, 3U}) {
        CHECK(relative_error(weights[i].grad(), weights_alone[i].grad()) <= 10 * tolerance);
      }
      CHECK(relative_error(weights[1].grad(), Tensor::zeros({1, 24}, dtype)) == 0);
    }
  }
}

TEST_CASE("linears refuse shapes and types that do not fit") {
  const Tensor x = random_tensor({2, 3}, 1);
  CHECK(error_of([&] { linears(x, {}); }) == "linears: no weight, expected at least one");
  CHECK(error_of([&] {
          linears(x, {random_tensor({4, 3}, 2), random_tensor({4, 2}, 2)});
        }) == "linears: x is [2, 3] and a weight is [4, 2], expected [R, I] and [O, I]");
  CHECK(error_of([&] {
          linears(x, {random_tensor({4, 3}, 2, DType::float32)});
        }) == "linears: x is float64 and a weight is float32, expected equal types");
}

TEST_CASE("a product whose gradient nobody wants is not computed") {
  struct Counter : Watcher {
    std::vector<bool> wanted;
    void on_backward(const OpEvent&, std::span<const Tensor>, std::span<const Tensor> dx) override {
      for (const Tensor& grad : dx) wanted.push_back(grad.defined());
    }
  };
  const Tensor x = random_tensor({4, 3}, 1), w = random_tensor({5, 3}, 2);
  const Tensor bias = random_tensor({5}, 3), seed = random_tensor({4, 5}, 4);
  const auto wanted = [&](const auto& run) {
    Counter counter;
    const Watch watch(counter);
    backward(run(), seed);
    return counter.wanted;
  };
  CHECK(wanted([&] { return matmul(x, Var::leaf(w), false, true); }) == std::vector{false, true});
  CHECK(wanted([&] { return matmul(Var::leaf(x), w, false, true); }) == std::vector{true, false});
  CHECK(wanted([&] { return linear(x, Var::leaf(w), bias); }) == std::vector{false, true, false});
  CHECK(wanted([&] { return linear(x, w, Var::leaf(bias)); }) == std::vector{false, false, true});
  CHECK(wanted([&] { return linear(Var::leaf(x), w); }) == std::vector{true, false, false});
}

TEST_CASE("matmul and linear refuse shapes and types that do not fit") {
  const Tensor a = random_tensor({2, 3}, 1), b = random_tensor({2, 4}, 2);
  CHECK(error_of([&] { matmul(a, b); }) ==
        "matmul: a is [2, 3] and b is [2, 4], expected [M, K] and [K, N]");
  CHECK(error_of([&] { matmul(a, b, true, true); }) ==
        "matmul: a is [2, 3] transposed and b is [2, 4] transposed, expected [M, K] and [K, N]");
  CHECK(error_of([&] { matmul(a, random_tensor({3}, 2)); }) ==
        "matmul: a is [2, 3] and b is [3], expected [M, K] and [K, N]");
  CHECK(error_of([&] {
          matmul(a, random_tensor({3, 2}, 2, DType::float32));
        }) == "matmul: a is float64 and b is float32, expected equal types");
  CHECK(error_of([&] { linear(a, b); }) ==
        "linear: x is [2, 3] and weight is [2, 4], expected [R, I] and [O, I]");
  CHECK(error_of([&] {
          linear(a, random_tensor({5, 3}, 2), random_tensor({3}, 3));
        }) == "linear: bias is [3] and weight is [5, 3], expected [O] and [O, I]");
  CHECK(error_of([&] {
          linear(a, random_tensor({5, 3}, 2), random_tensor({5}, 3, DType::float32));
        }) == "linear: x is float64, weight is float64, bias is float32, expected equal types");
}

TEST_CASE("the bits of a row do not depend on the other rows, their number or its place") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const std::int64_t depth : {1, 3, 16, 64, 128, 300}) {
      for (const std::int64_t columns : {1, 2, 5, 16, 40, 100, 128, 256}) {
        const Tensor weight = random_tensor({columns, depth}, 1, dtype);
        const Tensor b = random_tensor({depth, columns}, 2, dtype);
        const Tensor x = random_tensor({37, depth}, 3, dtype);
        const Tensor by_weight = linear(x, weight).value(), by_b = matmul(x, b).value();
        for (const auto& [begin, end] : {std::pair{0, 1}, {0, 36}, {1, 37}, {35, 37}, {6, 29}}) {
          INFO(depth << " -> " << columns << ", rows " << begin << " to " << end);
          const Tensor part = x.rows(begin, end);
          CHECK(same_bits(linear(part, weight).value(), by_weight.rows(begin, end)));
          CHECK(same_bits(matmul(part, b).value(), by_b.rows(begin, end)));
        }
      }
    }
  }
}

TEST_CASE("matmul, linear and linears on CUDA equal the CPU, the same to the bit in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  // The last ones have rows enough for gradients in parts, without and with rows left over.
  std::vector<std::array<std::int64_t, 3>> sizes(kSizes.begin(), kSizes.end());
  sizes.push_back({512, 9, 13});
  sizes.push_back({777, 66, 5});
  for (const auto& size : sizes) {
    const std::int64_t rows = size[0], depth = size[1], n = size[2];
    INFO(rows << " " << depth << " " << n);
    const Tensor x = random_tensor({rows, depth}, 1), w = random_tensor({n, depth}, 2);
    const auto product = [](std::span<const Var> in) { return matmul(in[0], in[1], true); };
    check_on_cuda(product, {transposed(x), transposed(w)});
    const auto layer = [](std::span<const Var> in) { return linear(in[0], in[1], in[2]); };
    check_on_cuda(layer, {x, w, random_tensor({n}, 3)});
    const auto layers = [](std::span<const Var> in) {
      const std::vector<Var> y = linears(in[0], {in[1], in[2], in[1]});
      return add(mul(y[0], y[2]), y[2]);
    };
    check_on_cuda(layers, {x, w, random_tensor({3, depth}, 4)});
  }
  // More layers than go as one launch's argument.
  const auto many = [](std::span<const Var> in) {
    const std::vector<Var> y = linears(in[0], std::vector<Var>(19, in[1]));
    return add(y.front(), y.back());
  };
  check_on_cuda(many, {random_tensor({5, 3}, 1), random_tensor({2, 3}, 2)});
}
