// Row-wise ops on so many rows that they cut themselves into pieces for threads.
#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "engine/parallel.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "ops/embedding/embedding.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"
#include "tests/support/compare.h"
#include "tests/support/threads.h"

using namespace hax;
using namespace hax::test;

namespace {

// Neither a multiple of the pieces nor of a vector; half of it is not cut.
constexpr std::int64_t kRows = 2 * kRowsWorthAPiece + 10, kDim = 64;

// Rows begin..end-1 of x [kRows, kDim] and a parameter -> one row each, or a sum over the rows.
struct Case {
  const char* name;
  Shape parameter;
  std::function<Var(const Var& x, const Var& parameter, std::int64_t begin, std::int64_t end)> op;
};

std::vector<Case> cases() {
  std::vector<std::int32_t> numbers;
  for (std::int64_t t = 0; t < kRows; ++t) {
    numbers.push_back(static_cast<std::int32_t>(t * t % 37));
  }
  const Tensor index = Tensor::from(numbers);
  return {
      {"linear", {10, kDim}, [](auto& x, auto& w, auto, auto) { return linear(x, w); }},
      {"linear with a bias",
       {kDim},
       [](auto& x, auto& bias, auto, auto) {
         return linear(x, random_tensor({kDim, kDim}, 5, x.dtype()), bias);
       }},
      {"three linears",
       {9, kDim},
       [](auto& x, auto& w, auto, auto) {
         const std::vector<Var> y = linears(x, {w, scale(w, 0.5), w});
         return mul(y[0], y[2]);
       }},
      {"rms_norm", {kDim}, [](auto& x, auto& w, auto, auto) { return rms_norm(x, w); }},
      {"a product with a row", {kDim}, [](auto& x, auto& w, auto, auto) { return mul(x, w); }},
      {"functions of each element",
       {kDim},
       [](auto& x, auto& w, auto, auto) { return mul(softplus(x), add(x, w)); }},
      {"embedding",
       {37, kDim},
       [=](auto& x, auto& table, auto begin, auto end) {
         return add(x, embedding(table, index.rows(begin, end)));
       }},
      {"cross_entropy",
       {37, kDim},
       [=](auto& x, auto& w, auto begin, auto end) {
         return cross_entropy(linear(x, w), index.rows(begin, end), 100);
       }},
  };
}

struct Result {
  Tensor y, dx, dparameter;
};

Result run(const Case& c, const Tensor& x, const Tensor& parameter, std::int64_t begin,
           std::int64_t end) {
  const Var rows = Var::leaf(x.rows(begin, end)), p = Var::leaf(parameter);
  const Var y = c.op(rows, p, begin, end);
  const bool sum = y.shape().rank() == 0;
  const Tensor dy = sum ? Tensor{} : random_tensor({kRows, y.size(1)}, 3, x.dtype());
  backward(record("loss", Tensor::zeros({}, x.dtype()), {y},
                  [=](const Tensor& one) { return Grads{sum ? one : dy.rows(begin, end)}; }));
  return {y.value(), rows.grad(), p.grad()};
}

}  // namespace

TEST_CASE("many rows give what fewer give, to the bit, and the sums of their gradients") {
  for (const Case& c : cases()) {
    INFO(c.name);
    const Tensor x = random_tensor({kRows, kDim}, 1), parameter = random_tensor(c.parameter, 2);
    const std::int64_t half = kRows / 2;
    const Result all = run(c, x, parameter, 0, kRows);
    const Result one = run(c, x, parameter, 0, half), two = run(c, x, parameter, half, kRows);
    Tensor sum = one.dparameter.clone();
    accumulate(sum, two.dparameter);
    CHECK(relative_error(all.dparameter, sum) < 1e-12);
    CHECK(same_bits(all.dx.rows(0, half), one.dx));
    CHECK(same_bits(all.dx.rows(half, kRows), two.dx));
    if (all.y.shape().rank() == 0) {
      Tensor loss = one.y.clone();
      accumulate(loss, two.y);
      CHECK(relative_error(all.y, loss) < 1e-12);
    } else {
      CHECK(same_bits(all.y.rows(0, half), one.y));
      CHECK(same_bits(all.y.rows(half, kRows), two.y));
    }
  }
}

TEST_CASE("many rows give the same bits on any number of threads") {
  for (const Case& c : cases()) {
    INFO(c.name);
    const Tensor x = random_tensor({kRows, kDim}, 1, DType::float32);
    const Tensor parameter = random_tensor(c.parameter, 2, DType::float32);
    const auto on_threads = [&](int number) {
      const Threads threads(number);
      return run(c, x, parameter, 0, kRows);
    };
    const Result one = on_threads(1), three = on_threads(3);
    CHECK(same_bits(one.y, three.y));
    CHECK(same_bits(one.dx, three.dx));
    CHECK(same_bits(one.dparameter, three.dparameter));
  }
}
