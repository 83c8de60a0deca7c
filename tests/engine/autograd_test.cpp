#include "tests/engine/autograd_support.h"

#include <doctest/doctest.h>

#include <thread>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::graph;

namespace {

// a -> (a, 2a, 3a); records which dy were defined.
std::vector<Var> three_multiples(const Var& a, std::vector<bool>* defined) {
  const auto times = [t = a.value()](double k) {
    return product(t, Tensor::full(t.shape(), k, DType::float64));
  };
  return record_many("three_multiples", {times(1), times(2), times(3)}, {a},
                     [defined, shape = a.shape()](std::span<const Tensor> dy) {
                       Tensor dx = Tensor::zeros(shape, DType::float64);
                       for (std::size_t i = 0; i < dy.size(); ++i) {
                         defined->push_back(dy[i].defined());
                         if (!dy[i].defined()) continue;
                         for (std::size_t k = 0; k <= i; ++k) accumulate(dx, dy[i]);
                       }
                       return Grads{dx};
                     });
}

}  // namespace

TEST_CASE("gradients of a product of sums") {
  const Var x = Var::leaf(scalar(3), "x"), y = Var::leaf(scalar(5), "y");
  const Var loss = mul(add(x, y), y);  // xy + y^2
  CHECK(loss.value().item() == 40);
  CHECK_FALSE(x.grad().defined());
  backward(loss);
  CHECK(x.grad().item() == 5);
  CHECK(y.grad().item() == 13);
}

TEST_CASE("a shared subexpression is differentiated once, with all that arrives") {
  const Var x = Var::leaf(scalar(2));
  int calls = 0;
  const Tensor xt = x.value();
  const Var square = record("square", product(xt, xt), {x}, [xt, &calls](const Tensor& dy) {
    ++calls;
    return Grads{product(dy, product(xt, scalar(2)))};
  });
  backward(add(mul(square, square), square));  // x^4 + x^2
  CHECK(calls == 1);
  CHECK(x.grad().item() == 4 * 8 + 4);
}

TEST_CASE("diamonds, chained, and one input twice") {
  const Var x = Var::leaf(scalar(1));
  Var y = x;
  for (int i = 0; i < 30; ++i) y = add(y, y);
  backward(y);
  CHECK(x.grad().item() == 1 << 30);

  const Var a = Var::leaf(scalar(3));
  const Var left = mul(a, a), right = add(a, a);  // one long arm, one short
  backward(add(mul(left, a), right));
  CHECK(a.grad().item() == 27 + 2);
}

TEST_CASE("gradients that share storage are not written into each other") {
  const Var x = Var::leaf(scalar(3), "x"), y = Var::leaf(scalar(5), "y");
  const Var sum = add(x, y);               // both get the same dy tensor ...
  const Var seeded = add(sum, mul(x, y));  // ... and x, y then get more
  const Tensor seed = scalar(10);
  backward(seeded, seed);
  CHECK(x.grad().item() == 60);
  CHECK(y.grad().item() == 40);
  CHECK(seed.item() == 10);

  // An op that returns a tensor that it saved.
  const Var z = Var::leaf(scalar(7));
  const Tensor saved = scalar(2);
  const Var inner = identity(z);
  const auto twice = [&] {
    return record("twice", scalar(14), {inner}, [saved](const Tensor&) { return Grads{saved}; });
  };
  backward(add(twice(), twice()));
  CHECK(z.grad().item() == 4);
  CHECK(saved.item() == 2);
}

TEST_CASE("backward adds into the gradient tensor that the caller gave, at its place") {
  Tensor buffer = Tensor::full({4}, 100, DType::float64);  // one flat buffer, as a trainer has it
  const Tensor one = Tensor::full({2}, 1, DType::float64);
  const Var x = Var::leaf(Tensor::full({2}, 3, DType::float64), "x", buffer.flat(0, 2));
  const Var y = Var::leaf(Tensor::full({2}, 5, DType::float64), "y", buffer.flat(2, 4));
  for (int pass = 1; pass <= 2; ++pass) {
    backward(add(mul(x, y), x), one);
    CHECK(same_bits(buffer, Tensor::from(std::vector<double>{100. + 6 * pass, 100. + 6 * pass,
                                                             100. + 3 * pass, 100. + 3 * pass})));
  }
  CHECK(x.grad().raw() == buffer.raw());
}

TEST_CASE("a leaf's own gradient accumulates over calls and belongs to nobody else") {
  const Var x = Var::leaf(scalar(3));
  const Tensor seed = scalar(1);
  backward(identity(x), seed);
  const Tensor held = x.grad();
  backward(identity(x), seed);
  CHECK(x.grad().item() == 2);
  CHECK(held.item() == 2);  // the leaf's tensor itself
  CHECK(seed.item() == 1);
}

TEST_CASE("a leaf may itself be the loss") {
  const Tensor seed = scalar(4);
  const Var plain = Var::leaf(scalar(3));
  backward(plain, seed);
  backward(plain, seed);
  CHECK(plain.grad().item() == 8);
  CHECK(seed.item() == 4);
  Tensor buffer = scalar(100);
  const Var given = Var::leaf(scalar(3), "given", buffer);
  backward(given, seed);
  CHECK(buffer.item() == 104);
}

TEST_CASE("several outputs: dy is undefined where the loss does not reach") {
  std::vector<bool> defined;
  const Var x = Var::leaf(scalar(2));
  const std::vector<Var> outputs = three_multiples(x, &defined);
  backward(mul(outputs[0], outputs[2]));  // 3 x^2
  CHECK(defined == std::vector<bool>{true, false, true});
  CHECK(x.grad().item() == 12);

  defined.clear();
  const Var y = Var::leaf(scalar(2));
  backward(three_multiples(y, &defined)[1]);  // an output can be the loss
  CHECK(defined == std::vector<bool>{false, true, false});
  CHECK(y.grad().item() == 2);
}

TEST_CASE("inputs without a gradient: constants, undefined inputs, undefined results") {
  const Var x = Var::leaf(scalar(2)), constant = scalar(5);
  CHECK_FALSE(constant.requires_grad());
  backward(mul(x, constant));
  CHECK(x.grad().item() == 5);

  const Var a = Var::leaf(scalar(1)), b = Var::leaf(scalar(1));
  backward(record("picky", scalar(1), {a, Var(), b}, [](const Tensor& dy) {
    return Grads{dy, Tensor(), Tensor()};
  }));
  CHECK(a.grad().item() == 1);
  CHECK_FALSE(b.grad().defined());
}

TEST_CASE("NoGrad and detach cut the graph") {
  const Var x = Var::leaf(scalar(3));
  CHECK(grad_enabled());
  {
    const NoGrad outer;
    {
      const NoGrad inner;
      CHECK_FALSE(grad_enabled());
    }
    CHECK_FALSE(grad_enabled());
    CHECK_FALSE(mul(x, x).requires_grad());
    std::thread([] { CHECK(grad_enabled()); }).join();
  }
  CHECK(grad_enabled());
  const Var cut = mul(x, x).detach();
  CHECK_FALSE(cut.requires_grad());
  backward(mul(cut, x));
  CHECK(x.grad().item() == 9);
}

TEST_CASE("an op without a gradient stops backward, unless nothing arrives there") {
  const Var x = Var::leaf(scalar(3));
  const Var rounded = record_without_gradient("round", scalar(3), {x});
  CHECK(error_of([&] {
          const Scope scope("mixer");
          backward(mul(record_without_gradient("round", scalar(3), {x}), x));
        }) ==
        "round in mixer has no gradient: detach its input, or take its result out of the loss");
  const Var unused = record("gate", scalar(1), {x, rounded}, [](const Tensor& dy) {
    return Grads{dy, Tensor()};
  });
  const Var y = Var::leaf(scalar(1));
  backward(mul(unused, y));
  CHECK(y.grad().item() == 1);
}

TEST_CASE("gradients of the wrong count, shape or type are refused by name") {
  const Var x = Var::leaf(Tensor::zeros({2, 3}, DType::float64));
  const auto error = [&](Grads grads) {
    const Scope scope("layer");
    return error_of([&] {
      backward(record("bad", scalar(1), {x, x}, [grads](const Tensor&) { return grads; }));
    });
  };
  const Tensor right = Tensor::zeros({2, 3}, DType::float64);
  CHECK(error({right}) == "bad in layer: backward returned 1 gradients for 2 inputs");
  CHECK(error({right, right, right}) == "bad in layer: backward returned 3 gradients for 2 inputs");
  CHECK(error({right, Tensor::zeros({3, 2}, DType::float64)}) ==
        "bad in layer: the gradient of input 1 is float64 [3, 2], the input is float64 [2, 3]");
  CHECK(error({Tensor::zeros({2, 3}), right}) ==
        "bad in layer: the gradient of input 0 is float32 [2, 3], the input is float64 [2, 3]");
  CHECK(error({right, right}) == "");
}

TEST_CASE("backward refuses losses, seeds and leaves that make no sense") {
  const Var x = Var::leaf(Tensor::zeros({2}, DType::float64), "x");
  CHECK(error_of([&] { backward(Var(scalar(1))); }) ==
        "backward: the loss does not depend on any leaf");
  CHECK(error_of([&] { backward(Var()); }) == "backward: the loss does not depend on any leaf");
  CHECK(error_of([&] { backward(identity(x)); }) ==
        "backward: the loss has shape [2]; give a seed gradient");
  CHECK(error_of([&] { backward(identity(x), Tensor::zeros({3}, DType::float64)); }) ==
        "backward: the seed is float64 [3] on cpu, the loss is float64 [2] on cpu");
  CHECK(error_of([&] { backward(identity(x), Tensor::zeros({2})); }) ==
        "backward: the seed is float32 [2] on cpu, the loss is float64 [2] on cpu");
  CHECK(error_of([&] { (void)identity(x).grad(); }) == "grad(): only leaves keep their gradient");
  CHECK(error_of([] { Var::leaf(Tensor::zeros({1}, DType::int32), "w"); }) ==
        "leaf 'w': only floating-point tensors have gradients, not int32");
  CHECK(error_of([] { Var::leaf(Tensor::zeros({2}), "w", Tensor::zeros({3})); }) ==
        "leaf 'w': its gradient tensor has another shape, type or device than its value");
  CHECK(error_of([] { Var::leaf(Tensor(), "w"); }) == "leaf 'w': its value is undefined");
}

TEST_CASE("scopes nest, per thread, and are kept by what is recorded in them") {
  CHECK(current_scope().empty());
  const Scope outer("backbone");
  Var y;
  {
    const Scope inner("layers.0");
    CHECK(current_scope() == "backbone.layers.0");
    y = identity(Var::leaf(scalar(1)));
    std::thread([] { CHECK(current_scope().empty()); }).join();
  }
  CHECK(current_scope() == "backbone");
  CHECK(*y.node()->scope == "backbone.layers.0");
}

namespace {

class Diary : public Watcher {
 public:
  std::vector<std::string> lines;

  void on_forward(const OpEvent& event, std::span<const Var> inputs,
                  std::span<const Tensor> outputs) override {
    lines.push_back(fmt::format("forward {}@{} {}->{}{}", event.op, event.scope, inputs.size(),
                                outputs[0].item(), event.node ? "" : " unrecorded"));
  }
  void on_backward(const OpEvent& event, std::span<const Tensor> dy,
                   std::span<const Tensor> dx) override {
    lines.push_back(fmt::format("backward {}@{} {}->{}", event.op, event.scope, dy[0].item(),
                                dx[0].defined() ? fmt::to_string(dx[0].item()) : "nothing"));
  }
  void on_leaf(const std::string& name, const Tensor& grad) override {
    lines.push_back(fmt::format("leaf {} {}", name, grad.item()));
  }
};

}  // namespace

TEST_CASE("a watcher sees every forward, backward and leaf, in order") {
  Diary diary;
  const Var x = Var::leaf(scalar(3), "x"), y = Var::leaf(scalar(5), "y");
  const Var untouched = Var::leaf(scalar(1), "untouched");
  {
    const Watch watch(diary);
    Var loss;
    {
      const Scope scope("block");
      loss = mul(x, y);
    }
    {
      const NoGrad no_grad;
      identity(x, "peek");
    }
    const Var stop =
        record("stop", scalar(1), {untouched}, [](const Tensor&) { return Grads{Tensor()}; });
    backward(mul(loss, stop));
    std::thread([] { identity(scalar(1), "elsewhere"); }).join();
  }
  identity(x, "after");
  CHECK(diary.lines == std::vector<std::string>{"forward mul@block 2->15",
                                                "forward peek@ 1->3 unrecorded",
                                                "forward stop@ 1->1", "forward mul@ 2->15",
                                                "backward mul@ 1->1", "backward stop@ 15->nothing",
                                                "backward mul@block 1->5", "leaf x 5", "leaf y 3"});
}

TEST_CASE("watchers stack, and each leaves by itself") {
  Diary first, second;
  const Var x = scalar(1);
  auto watch_first = std::make_unique<Watch>(first);
  auto watch_second = std::make_unique<Watch>(second);
  identity(x, "both");
  watch_first.reset();  // not the last one installed
  identity(x, "one");
  watch_second.reset();
  identity(x, "none");
  CHECK(first.lines == std::vector<std::string>{"forward both@ 1->1 unrecorded"});
  CHECK(second.lines ==
        std::vector<std::string>{"forward both@ 1->1 unrecorded", "forward one@ 1->1 unrecorded"});
}
