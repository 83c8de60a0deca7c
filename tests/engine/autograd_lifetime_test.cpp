// The life of a graph: what closures hold and for how long, walking it once, failures, threads.
#include <doctest/doctest.h>

#include <stdexcept>
#include <thread>

#include "engine/memory.h"
#include "tests/engine/autograd_support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::graph;

TEST_CASE("nothing is recorded without a leaf, and closures go at once") {
  const std::shared_ptr<int> saved = std::make_shared<int>(1);
  const auto op = [&](const Var& x) {
    return record("op", scalar(1), {x}, [saved](const Tensor& dy) { return Grads{dy}; });
  };
  const Var constant = op(scalar(1));
  CHECK_FALSE(constant.requires_grad());
  CHECK(saved.use_count() == 1);
  const Var recorded = op(Var::leaf(scalar(1)));
  CHECK(recorded.requires_grad());
  CHECK(saved.use_count() == 2);
  backward(recorded);
  CHECK(saved.use_count() == 1);
}

TEST_CASE("a graph can be walked once") {
  const Var x = Var::leaf(scalar(3));
  const Var shared = mul(x, x), loss = identity(shared);
  backward(loss);
  CHECK(x.grad().item() == 6);
  CHECK(x.node().use_count() == 1);  // the loss is still held, its graph is not
  const auto freed = [](const char* op) {
    return fmt::format("{}: its graph was freed by an earlier backward(); run the forward again",
                       op);
  };
  CHECK(error_of([&] { backward(loss); }) == freed("identity"));
  // A new loss on top of a freed part: refused before any leaf is touched.
  CHECK(error_of([&] { backward(mul(shared, x)); }) == freed("mul"));
  CHECK(x.grad().item() == 6);
}

TEST_CASE("a failure half-way leaves nothing behind that a later backward would add") {
  const Var x = Var::leaf(scalar(3));
  const Var base = mul(x, x);
  const Var broken = record("broken", scalar(1), {base},
                            [](const Tensor&) -> Grads { throw std::runtime_error("no"); });
  // base has received dy = 1 from identity (newer) when broken (older) throws.
  const Var loss = add(identity(base), broken);
  CHECK_THROWS_WITH_AS(backward(loss), "no", std::runtime_error);
  CHECK_FALSE(x.grad().defined());
  CHECK_THROWS_AS(backward(base), Error);  // freed with the rest, not silently wrong
  backward(mul(x, x));
  CHECK(x.grad().item() == 6);
}

TEST_CASE("a graph may be built by several threads, one after the other") {
  // Threads count their ops separately: the second one begins anew.
  const Var x = Var::leaf(scalar(3));
  Var y = x;
  for (int i = 0; i < 10; ++i) y = identity(y);
  Var loss;
  std::thread([&] { loss = mul(mul(y, x), y); }).join();
  backward(loss);
  CHECK(x.grad().item() == 27);
}

TEST_CASE("a chain of a million ops overflows no stack, walked or thrown away") {
  const auto chain = [](const Var& x) {
    Var y = x;
    for (int i = 0; i < 1'000'000; ++i) y = identity(y);
    return y;
  };
  const Var x = Var::leaf(scalar(2));
  backward(chain(x));
  CHECK(x.grad().item() == 1);
  Var dropped = chain(x);
  dropped = {};  // without backward: the nodes destroy each other
  CHECK(x.node().use_count() == 1);
}

TEST_CASE("values and gradients are freed while backward goes back") {
  constexpr int kOps = 20;
  constexpr std::int64_t kBytes = 1 << 20;
  const std::int64_t start = memory_stats(kCpu).bytes_in_use;
  const auto in_use = [&] { return memory_stats(kCpu).bytes_in_use - start; };
  std::vector<std::int64_t> seen;
  {
    const Tensor value = Tensor::full({kBytes / 8}, 1, DType::float64);
    const Var x = Var::leaf(value);
    Var y = x;
    for (int i = 0; i < kOps; ++i) {
      const Tensor saved = y.value();
      y = record("copy", saved.clone(), {y}, [saved, &seen, &in_use](const Tensor& dy) {
        seen.push_back(in_use());
        return Grads{dy.clone()};
      });
    }
    CHECK(in_use() == (kOps + 1) * kBytes);  // every closure holds its input; y the last output
    const Var loss = y;
    y = {};
    reset_peak_memory(kCpu);
    backward(loss, Tensor::full(value.shape(), 1, DType::float64));
    // Seen by op k from the end: the leaf, the loss, the saved inputs of the ops before it (the
    // first one saved the leaf's value), its own, and dy.
    REQUIRE(seen.size() == kOps);
    for (int k = 0; k < kOps; ++k) {
      CHECK(seen[static_cast<std::size_t>(k)] == (kOps + 2 - k) * kBytes);
    }
    CHECK(memory_stats(kCpu).peak_bytes_in_use - start == (kOps + 3) * kBytes);
    CHECK(in_use() == 3 * kBytes);  // value, gradient and the loss
  }
  CHECK(in_use() == 0);
}

TEST_CASE("a value that no closure saved is freed with its last Var, before backward") {
  constexpr std::int64_t kBytes = 1 << 20;
  const Var x = Var::leaf(Tensor::full({kBytes / 8}, 1, DType::float64));
  const std::int64_t start = memory_stats(kCpu).bytes_in_use;
  Var y = x;
  for (int i = 0; i < 5; ++i) {
    y = record("negate", y.value().clone(), {y}, [](const Tensor& dy) { return Grads{dy}; });
  }
  CHECK(memory_stats(kCpu).bytes_in_use == start + kBytes);
}
