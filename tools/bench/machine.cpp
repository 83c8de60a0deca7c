#include "tools/bench/machine.h"

#include <omp.h>

#include <array>
#include <functional>
#include <vector>

#include "engine/memory.h"
#include "engine/random.h"
#include "ops/matmul/matmul.h"
#include "ops/vector_math.h"
#include "tools/bench/bench.h"

namespace hax::bench {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr const char* kFma = "fused multiply-add";
#else
constexpr const char* kFma = "multiply, then add";
#endif

using Vector __attribute__((vector_size(kVectorBytes))) = float;
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(float));

// Where results go that must not be optimised away.
void keep(const void* result) { asm volatile("" : : "r"(result) : "memory"); }

/// The work of one thread: `prepare` makes its data and returns what is timed.
using Kernel = std::function<std::function<void()>()>;

// What threads found that ran a kernel side by side, each on data of its own.
struct SideBySide {
  std::vector<double> seconds;  ///< of every run of every thread
  double runs_per_s = 0;        ///< of all threads together, each at its fastest
};

// The threads start together and then go on by themselves: a barrier after every run would measure
// the barrier.
SideBySide run_side_by_side(int threads, const Effort& effort, const Kernel& prepare) {
  SideBySide found;
#pragma omp parallel num_threads(threads)
  {
    const std::function<void()> run = prepare();
    run();
#pragma omp barrier
    std::vector<double> seconds;
    const double start = seconds_now();
    while (seconds.size() < effort.runs || seconds_now() - start < effort.seconds) {
      seconds.push_back(seconds_of(run));
    }
#pragma omp critical
    {
      found.runs_per_s += 1 / *std::ranges::min_element(seconds);
      found.seconds.insert(found.seconds.end(), seconds.begin(), seconds.end());
    }
  }
  return found;
}

// Twelve independent chains hide the latency of 4 cycles on two units, with registers to spare.
constexpr std::int64_t kFmaRounds = 1 << 20;
constexpr int kChains = 12;
constexpr double kFmaFlops = 2.0 * kFmaRounds * kChains * kLanes;

void multiply_add() {
  std::array<Vector, kChains> sums{};
  Vector factor = Vector{} + 0.999F, term = Vector{} + 1e-4F;
  asm volatile("" : "+m"(factor), "+m"(term));  // not constants to the compiler
  for (std::int64_t i = 0; i < kFmaRounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + term;
  }
  keep(sums.data());
}

// The project's own exponentials over numbers that stay in the first-level cache.
constexpr std::int64_t kExpNumbers = 2048, kExpRounds = 512;

template <class Exp>
std::function<void()> exponentials(Exp exp) {
  Tensor x = Tensor::empty({kExpNumbers}), y = Tensor::empty({kExpNumbers});
  fill_uniform(x, {.seed = 1}, -5, 0);
  return [x, y, exp]() mutable {
    const float* in = x.data<float>();
    float* out = y.data<float>();
    for (std::int64_t round = 0; round < kExpRounds; ++round) {
#pragma omp simd
      for (std::int64_t i = 0; i < kExpNumbers; ++i) out[i] = exp(in[i]);
      keep(out);
    }
  };
}

// a = b + s c. 12 bytes a number; the line of a that a plain store reads first is not counted.
std::function<void()> triad(std::int64_t numbers, std::int64_t rounds) {
  Tensor a = Tensor::full({numbers}, 1), b = Tensor::full({numbers}, 2),
         c = Tensor::full({numbers}, 3);
  return [a, b, c, numbers, rounds]() mutable {
    float* to = a.data<float>();
    const float *left = b.data<float>(), *right = c.data<float>();
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma omp simd
      for (std::int64_t i = 0; i < numbers; ++i) to[i] = left[i] + 1.1F * right[i];
      keep(to);
    }
  };
}

// The product of a linear layer, x W^T, through the op that the models call.
std::function<void()> product(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                              std::int64_t rounds) {
  Tensor x = Tensor::empty({rows, depth}), weight = Tensor::empty({columns, depth});
  fill_normal(x, {.seed = 1});
  fill_normal(weight, {.seed = 2});
  return [x, weight, rounds] {
    const NoGrad no_grad;
    for (std::int64_t round = 0; round < rounds; ++round) {
      const Var y = linear(x, weight);
      keep(y.value().raw());
    }
  };
}

struct Limit {
  std::string name, unit, kernel;
  double count;  ///< in one run of one thread
  Kernel prepare;
  double* target;  ///< set to the rate, where that is higher than what is there
};

std::vector<Limit> limits_into(Limits& limits, bool quick) {
  MachineLimits& m = limits.arithmetic;
  const std::string width = fmt::format("{} bits wide", 8 * kVectorBytes);
  const std::int64_t large = quick ? 1024 : 2048, stream = quick ? 8 << 20 : 32 << 20;
  constexpr std::int64_t kCached = 1 << 15, kCachedRounds = 512;
  constexpr double kExps = static_cast<double>(kExpNumbers * kExpRounds);
  const auto gemm = [&](std::int64_t rows, std::int64_t columns, std::int64_t depth,
                        std::int64_t rounds) {
    return Limit{fmt::format("product {} x {} x {}", rows, columns, depth),
                 "FLOP/s",
                 "ops/matmul (Eigen)",
                 2.0 * static_cast<double>(rows * columns * depth * rounds),
                 [=] { return product(rows, columns, depth, rounds); },
                 &m.products};
  };
  return {
      {"multiply-add in registers", "FLOP/s",
       fmt::format("{}, {}, {} chains", kFma, width, kChains), kFmaFlops,
       [] { return std::function<void()>(multiply_add); }, &m.other},
      {"exp", "/s", "ops/vector_math.h fast_exp", kExps,
       [] { return exponentials([](float x) { return fast_exp(x); }); }, &m.exps},
      {"exp2", "/s", "ops/vector_math.h fast_exp2", kExps,
       [] { return exponentials([](float x) { return fast_exp2(x); }); }, &m.exps},
      {fmt::format("triad, 3 x {}", bytes_text(4 * kCached)), "B/s", "a = b + s c, in cache",
       12.0 * kCached * kCachedRounds, [] { return triad(kCached, kCachedRounds); },
       &limits.cache_bytes},
      {fmt::format("triad, 3 x {}", bytes_text(4.0 * static_cast<double>(stream))), "B/s",
       "a = b + s c, plain stores", 12.0 * static_cast<double>(stream),
       [stream] { return triad(stream, 1); }, &limits.memory_bytes},
      gemm(large, large, large, 1),
      gemm(463, 256, 64, 8),
  };
}

}  // namespace

double arithmetic_seconds(const Work& work, const Limits& limits) {
  if (!limits.side_by_side) return floor_seconds(work, limits.arithmetic);
  const MachineLimits& rates = limits.arithmetic;
  return std::max(work.products / rates.products + work.other / rates.other,
                  work.exps / rates.exps);
}

double work_bytes(const Work& work) { return 4 * work.numbers; }

double op_floor_seconds(const Work& work, const Limits& limits) {
  return std::max(arithmetic_seconds(work, limits), work_bytes(work) / limits.cache_bytes);
}

void bench_machine(Bench& bench) {
  bench.report.section(
      "machine", "Limits of this machine",
      "Each thread on data of its own. Rate: of the fastest run, since a neighbour can "
      "only slow it down.\nFloors below are counts of work over these rates (of "
      "two kernels for one thing, the faster).",
      {"threads", "median_s", "fastest_s", "runs", "rate"});
  const auto measure_all = [&](int threads, Limits& limits) {
    for (const Limit& limit : limits_into(limits, bench.quick)) {
      const SideBySide found = run_side_by_side(threads, bench.effort(.6, 5), limit.prepare);
      Row row{.name = limit.name, .unit = limit.unit, .kernel = limit.kernel};
      row.time(Timing(found.seconds));
      row.threads = threads;
      row.rate = limit.count * found.runs_per_s;
      *limit.target = std::max(*limit.target, *row.rate);
      bench.report.add(row);
      release_cached_memory(kCpu);
    }
  };
  measure_all(1, bench.one);
  bench.all = bench.one;
  if (bench.threads > 1) {
    bench.all = {};
    measure_all(bench.threads, bench.all);
  }
}

}  // namespace hax::bench
