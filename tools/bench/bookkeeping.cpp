#include "tools/bench/bookkeeping.h"

#include "engine/autograd.h"

namespace hax::bench {
namespace {

constexpr int kGraphs = 64;           // timed at once: a batch of them
constexpr int kOpsInScope = 8;        // about as many ops as there are to a scope in our models
constexpr std::int64_t kEntries = 1;  // of a tensor: too few to count

class OpCounter final : public Watcher {
 public:
  double ops = 0;
  void on_forward(const OpEvent&, std::span<const Var>, std::span<const Tensor>) override { ++ops; }
};

// What an op does beside computing: checks, a tensor for its result, another that it saves, a
// closure with three tensors; backward a tensor for each of two gradients.
Var idle_op(const Var& x, const Var& weight) {
  check(x.shape() == weight.shape(), "idle: {} and {}", x.shape(), weight.shape());
  check(is_floating(x.dtype()) && x.dtype() == weight.dtype(), "idle: {} and {}",
        name_of(x.dtype()), name_of(weight.dtype()));
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  Tensor saved = Tensor::empty(x.shape(), x.dtype(), x.device());
  y.data<float>()[0] = x.value().data<float>()[0];
  saved.data<float>()[0] = 1;
  return record("idle", y, {x, weight},
                [xt = x.value(), wt = weight.value(), saved](const Tensor& dy) {
                  Tensor dx = Tensor::empty(xt.shape(), xt.dtype(), xt.device());
                  Tensor dw = Tensor::empty(wt.shape(), wt.dtype(), wt.device());
                  dx.data<float>()[0] = dy.data<float>()[0] * saved.data<float>()[0];
                  dw.data<float>()[0] = 0;
                  return Grads{dx, dw};
                });
}

void run_graph(const Var& weight, int ops) {
  Var x(Tensor::full({kEntries}, 1));
  for (int i = 0; i < ops;) {
    const Scope scope("idle");
    for (const int end = std::min(ops, i + kOpsInScope); i < end; ++i) x = idle_op(x, weight);
  }
  backward(x);
}

}  // namespace

Bookkeeping measure_bookkeeping(const Training& training, const Effort& effort) {
  OpCounter counter;
  {
    const Watch watch(counter);
    training.run_sequence();
  }
  const int ops = static_cast<int>(counter.ops);
  const Var weight = Var::leaf(Tensor::full({kEntries}, 1), "weight", Tensor::zeros({kEntries}));
  const auto graphs = [&] {
    for (int i = 0; i < kGraphs; ++i) run_graph(weight, ops);
  };
  graphs();
  std::vector<double> seconds;
  const double start = seconds_now();
  while (seconds.size() < effort.runs || seconds_now() - start < effort.seconds) {
    seconds.push_back(seconds_of(graphs) / (kGraphs * counter.ops));
  }
  return {counter.ops, Timing(seconds)};
}

}  // namespace hax::bench
