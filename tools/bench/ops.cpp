// hax bench ops: every sequence of a batch through one op, forward and backward, as training runs
// them.
#include <omp.h>

#include <cmath>

#include "engine/denormals.h"
#include "engine/dispatch.h"
#include "models/model.h"
#include "tools/bench/bench.h"
#include "tools/bench/inputs.h"
#include "tools/bench/op_cases.h"
#include "tools/bench/training.h"
#include "train/optimizer.h"

namespace hax::bench {
namespace {

struct PassSeconds {
  double forward = 0, backward = 0;
};

std::vector<Var> variables(const OpInstance& op, DType dtype) {
  std::vector<Var> vars;
  for (const Tensor& input : op.inputs) {
    const Tensor value = input.to(dtype);
    vars.push_back(op.differentiable ? Var::leaf(value) : Var(value));
  }
  return vars;
}

// Forward and backward of one sequence, with the gradient `dy` of the result.
PassSeconds run_one(const OpInstance& op, const Tensor& dy) {
  PassSeconds seconds;
  const std::vector<Var> inputs = variables(op, DType::float32);
  Var y;
  seconds.forward = seconds_of([&] { y = op.run(inputs); });
  if (op.differentiable) seconds.backward = seconds_of([&] { backward(y, dy); });
  return seconds;
}

struct Loaded {
  OpInstance op;
  Tensor dy;
};

std::vector<Loaded> load(const OpCase& op_case, const Batch& batch) {
  std::vector<Loaded> loaded;
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    const auto seed = static_cast<std::uint64_t>(100 * s);
    OpInstance op =
        op_case.make({batch.sequences.slice(s, s + 1), batch.target_samples.length(s), seed, kCpu});
    Tensor dy;
    if (op.differentiable) {
      dy = random_tensor(op.run(variables(op, DType::float32)).shape(), seed + 50);
    }
    loaded.push_back({std::move(op), dy});
  }
  return loaded;
}

PassSeconds pass(const std::vector<Loaded>& loaded) {
  PassSeconds sum;
  const FlushDenormals flush;
  for (const Loaded& one : loaded) {
    const PassSeconds seconds = run_one(one.op, one.dy);
    sum.forward += seconds.forward;
    sum.backward += seconds.backward;
  }
  return sum;
}

double pass_on_threads(const std::vector<Loaded>& loaded, int threads) {
  return seconds_of([&] {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::size_t i = 0; i < loaded.size(); ++i) {
      const FlushDenormals flush;
      run_one(loaded[i].op, loaded[i].dy);
    }
  });
}

// max|a - b| / max|b| in double; of bins, the share that differ.
double difference(const Tensor& a, const Tensor& b) {
  if (!is_floating(a.dtype())) {
    double wrong = 0;
    for (std::int64_t i = 0; i < a.numel(); ++i) {
      if (a.data<std::int64_t>()[i] != b.data<std::int64_t>()[i]) ++wrong;
    }
    return wrong / static_cast<double>(a.numel());
  }
  const Tensor wide = a.to(DType::float64);
  double gap = 0, size = 0;
  for (std::int64_t i = 0; i < wide.numel(); ++i) {
    gap = std::max(gap, std::abs(wide.data<double>()[i] - b.data<double>()[i]));
    size = std::max(size, std::abs(b.data<double>()[i]));
  }
  return size == 0 ? gap : gap / size;
}

struct Errors {
  double forward = 0, backward = 0;
};

// The same numbers through the op in float32 and in float64.
Errors errors_of(const Loaded& one) {
  const std::vector<Var> narrow = variables(one.op, DType::float32);
  const std::vector<Var> wide = variables(one.op, DType::float64);
  const Var y = one.op.run(narrow), exact = one.op.run(wide);
  Errors errors{difference(y.value(), exact.value()), 0};
  if (!one.op.differentiable) return errors;
  backward(y, one.dy);
  backward(exact, one.dy.to(DType::float64));
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    errors.backward = std::max(errors.backward, difference(narrow[i].grad(), wide[i].grad()));
  }
  return errors;
}

void bench_case(Bench& bench, const OpCase& op_case, const Batch& batch) {
  const std::vector<Loaded> loaded = load(op_case, batch);
  double rows = 0;
  Work forward, backward;
  for (const Loaded& one : loaded) {
    rows += one.op.rows;
    forward = forward + one.op.forward;
    backward = backward + one.op.backward;
  }
  const bool differentiable = loaded.front().op.differentiable;
  const Effort effort = bench.effort(.8, 5);
  pass(loaded);
  std::vector<double> forward_s, backward_s, all_s;
  const double start = seconds_now();
  while (forward_s.size() < effort.runs || seconds_now() - start < effort.seconds) {
    const PassSeconds seconds = pass(loaded);
    forward_s.push_back(seconds.forward);
    backward_s.push_back(seconds.backward);
    if (bench.threads > 1) all_s.push_back(pass_on_threads(loaded, bench.threads));
  }
  const Errors errors = errors_of(loaded.back());
  const auto add = [&](const std::string& direction, const std::vector<double>& seconds,
                       int threads, const Work& work, const Limits& limits,
                       std::optional<double> error) {
    Row row{.name = op_case.name + direction};
    if (!direction.empty() && direction != ": forward") row.label = "  " + direction.substr(2);
    row.time(Timing(seconds)).per_token(rows).over(op_floor_seconds(work, limits));
    row.threads = threads;
    row.error = error;
    bench.report.add(row);
  };
  add(differentiable ? ": forward" : "", forward_s, 1, forward, bench.one, errors.forward);
  if (differentiable) add(": backward", backward_s, 1, backward, bench.one, errors.backward);
  if (bench.threads > 1) {
    add(fmt::format(": on {} threads", bench.threads), all_s, bench.threads, forward + backward,
        bench.all, std::nullopt);
  }
}

// One flat buffer, all parameters of Mamba + HAX: reads four numbers, writes three.
void bench_optimizer(Bench& bench) {
  const Model model(resolved_arch("mamba+sign_bin_lsh+key_selection"));
  Parameters parameters(model.parameters()), gradients(model.parameters());
  parameters.initialize(1);
  gradients.initialize(2);
  AdamW adam(model.parameters());
  std::int64_t step = 0;
  const auto count = static_cast<double>(model.parameters().count());
  Row row{.name = "AdamW, a parameter of Mamba + HAX"};
  row.time(measure(bench.effort(.3, 5), [&] { adam.update(++step, 1e-6, gradients, parameters); }))
      .per_token(count)
      .over(op_floor_seconds({.other = 15 * count, .numbers = 7 * count}, bench.one));
  row.threads = 1;
  bench.report.add(row);
}

}  // namespace

void bench_ops(Bench& bench) {
  bench.report.section("ops", "Ops at the paper's sizes",
                       "A batch of 64 sequences, one after the other on each thread. Floor: the "
                       "arithmetic, or the bytes\nat the cached triad's rate where these take "
                       "longer. Error: max|float32 - float64| / max|float64|.",
                       {"ns_per_token", "median_s", "fastest_s", "floor_s", "ratio", "error"});
  const Training training(resolved_arch("mamba"));
  const Batch batch = training.batch(3);
  for (const OpCase& op_case : op_cases()) bench_case(bench, op_case, batch);
  bench_optimizer(bench);
}

}  // namespace hax::bench
