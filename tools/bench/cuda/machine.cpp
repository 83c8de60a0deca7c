// hax bench machine --device cuda: what the device can do at best.
#include <functional>
#include <string>
#include <vector>

#include "engine/cuda/blas.h"
#include "engine/cuda/runtime.h"
#include "engine/memory.h"
#include "tools/bench/cuda/kernels.h"
#include "tools/bench/cuda/measure.h"
#include "tools/bench/cuda/parts.h"
#include "tools/bench/inputs.h"

namespace hax::bench {
namespace {

constexpr int kLaunches = 200;  // timed at once

// Products in TF32 while it lives.
class Tf32 {
 public:
  explicit Tf32(bool allowed) { cuda::allow_tf32(allowed); }
  ~Tf32() { cuda::allow_tf32(before_); }
  Tf32(const Tf32&) = delete;
  Tf32& operator=(const Tf32&) = delete;

 private:
  bool before_ = cuda::tf32_allowed();
};

struct Limit {
  std::string name, unit, kernel;
  double count;                ///< in one run
  std::function<void()> work;  ///< with its data
  double* target = nullptr;    ///< set to the rate, where that is higher than what is there
};

struct Sizes {
  std::int64_t copied, products, pack, blocks, rounds;
};

Sizes sizes_of(const Bench& bench) {
  if (bench.emulated)
    return {.copied = 1 << 12, .products = 32, .pack = 64, .blocks = 2, .rounds = 4};
  return {.copied = bench.quick ? 1 << 26 : 1 << 28,
          .products = 4096,
          .pack = 29632,
          .blocks = std::int64_t{8} * cuda::device_info().multiprocessors,
          .rounds = 1 << 12};
}

// x W^T of float32 or bfloat16, float32 sums.
Limit product(const char* type, std::int64_t m, std::int64_t n, std::int64_t k, double* target) {
  const std::string name(type);
  const bool narrow = name == "bfloat16", tf32 = name == "TF32";
  const auto on_device = [&](Shape shape, std::uint64_t seed) {
    const Tensor tensor = random_tensor(shape, seed).to(kCuda);
    return narrow ? tensor.to(DType::bfloat16) : tensor;
  };
  const Tensor x = on_device({m, k}, 1), weight = on_device({n, k}, 2);
  Tensor y = Tensor::empty({m, n}, x.dtype(), kCuda);
  return {.name = fmt::format("product {} x {} x {}, {}", m, n, k, type),
          .unit = "FLOP/s",
          .kernel = "engine/cuda/blas.h",
          .count = 2.0 * static_cast<double>(m * n * k),
          .work =
              [=]() mutable {
                const Tf32 allowed(tf32);
                cuda::gemm(x.dtype(), false, true, m, n, k, 1, x.raw(), k, weight.raw(), k, 0,
                           y.raw(), n);
              },
          .target = target};
}

// Made one after the other: their data would not fit all at once everywhere.
std::vector<std::function<Limit()>> limits_into(Limits& limits, const Sizes& size) {
  const auto copy = [&](const char* name, const char* kernel, auto run) {
    return [=, &limits] {
      const Tensor from = Tensor::zeros({size.copied}, DType::float32, kCuda);
      Tensor to = Tensor::zeros({size.copied}, DType::float32, kCuda);
      const double bytes = 4 * static_cast<double>(size.copied);
      return Limit{fmt::format("copy of {}, {}", bytes_text(bytes), name),
                   "B/s",
                   kernel,
                   2 * bytes,
                   [=]() mutable { run(from, to); },
                   &limits.memory_bytes};
    };
  };
  const auto registers = [&](const char* name, const char* unit, const char* kernel, double each,
                             auto run, double* target) {
    return [=] {
      const double count = each * kRegisterChains * kRegisterThreads *
                           static_cast<double>(size.blocks * size.rounds);
      Tensor keep = Tensor::zeros({1}, DType::float32, kCuda);
      return Limit{
          name,  unit, kernel, count, [=]() mutable { run(size.blocks, size.rounds, keep); },
          target};
    };
  };
  const auto square = [&](const char* type, double* target) {
    return [=] { return product(type, size.products, size.products, size.products, target); };
  };
  MachineLimits& m = limits.arithmetic;
  return {
      copy("own kernel", "float4, 4 at once",
           [](const Tensor& from, Tensor& to) { copy_numbers(from, to); }),
      copy("driver", "cudaMemcpyAsync",
           [](const Tensor& from, Tensor& to) {
             cuda::copy_on_device(to.raw(), from.raw(), 4 * static_cast<std::size_t>(from.numel()));
           }),
      square("float32", &m.products),
      square("TF32", nullptr),
      square("bfloat16", nullptr),
      [=, &m] { return product("float32", size.pack, 256, 64, &m.products); },
      registers("multiply-add in registers", "FLOP/s", "fmaf, 8 chains", 2, multiply_add, &m.other),
      registers("exp2 in registers", "/s", "exp2f, 8 chains", 1, exponentials, &m.exps),
  };
}

void bench_launches(Bench& bench) {
  const auto add = [&](const char* name, const Timing& timing) {
    Row row{.name = name};
    row.time(timing);
    bench.report.add(row);
  };
  const Timing many = time_on_device(bench.effort(.2, 5), [] {
    for (int i = 0; i < kLaunches; ++i) empty_launch();
  });
  add("launch of a kernel, one after another", many / kLaunches);
  const Recording graph([] { empty_launch(); }, kLaunches);
  add("node of a graph", time_on_device(bench.effort(.2, 5), [&] { graph.replay(); }) / kLaunches);
  const Recording one([] { empty_launch(); }, 1);
  add("replay of a graph of one node", time_on_device(bench.effort(.2, 5), [&] { one.replay(); }));
  add("launch, then wait for it", measure(bench.effort(.2, 5), [] {
        empty_launch();
        cuda::wait_for_stream();
      }));
}

}  // namespace

void bench_device_machine(Bench& bench) {
  bench.report.section(
      "machine", "Limits of this device",
      "Rate: of the fastest run. Shares and floors below are counts of work over these rates "
      "(of two kernels\nfor one thing, the faster).",
      {"median_s", "fastest_s", "runs", "rate"});
  Limits& limits = bench.one;
  for (const std::function<Limit()>& make : limits_into(limits, sizes_of(bench))) {
    {
      const Limit limit = make();
      const Timing timing = time_on_device(bench.effort(.4, 5), limit.work);
      Row row{.name = limit.name, .unit = limit.unit, .kernel = limit.kernel};
      row.time(timing);
      row.rate = limit.count / timing.fastest;
      if (limit.target != nullptr) *limit.target = std::max(*limit.target, *row.rate);
      bench.report.add(row);
    }
    release_cached_memory(kCuda);
  }
  bench_launches(bench);
  limits.cache_bytes = limits.memory_bytes;
  limits.side_by_side = true;
  bench.all = limits;
}

}  // namespace hax::bench
