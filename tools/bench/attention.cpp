// hax bench index and hax bench attention: one sequence, short to very long, on one thread.
#include "ops/sparse_attention/sparse_attention.h"

#include "engine/denormals.h"
#include "ops/full_attention/full_attention.h"
#include "tools/bench/bench.h"
#include "tools/bench/inputs.h"
#include "tools/bench/memory_use.h"

namespace hax::bench {
namespace {

constexpr std::int64_t kState = 16, kInner = 128, kKeys = 32;
constexpr double N = kState, E = kInner;
constexpr std::int64_t kSlopeFrom = 1 << 16;

Tensor bins_of(std::int64_t length, std::uint64_t seed) {
  Tensor bins = Tensor::empty({length}, DType::int64);
  RandomStream stream({.seed = seed});
  for (std::int64_t i = 0; i < length; ++i) bins.data<std::int64_t>()[i] = stream.below(256);
  return bins;
}

struct IndexCase {
  const char* name;
  std::function<void(const Sequences&)> build;
};

std::vector<IndexCase> index_cases(std::int64_t length) {
  const Tensor random = random_tensor({length}, 1);
  Tensor rising = Tensor::empty({length}), equal = Tensor::full({length}, 1);
  for (std::int64_t i = 0; i < length; ++i) rising.data<float>()[i] = static_cast<float>(i);
  const Tensor queries = bins_of(length, 2), keys = bins_of(length, 3);
  const Tensor Q = random_tensor({length, kState}, 4), K = random_tensor({length, kState}, 5);
  const auto select = [](Tensor score) {
    return [score](const Sequences& one) { key_selection_keys(score, one, kKeys); };
  };
  return {
      {"key selection, random scores", select(random)},
      {"key selection, rising scores", select(rising)},
      {"key selection, equal scores", select(equal)},
      {"hashing, 256 bins", [=](const Sequences& one) { lsh_keys(queries, keys, one, kKeys); }},
      {"HAX: bins, both sets, union", [=](const Sequences& one) { hax_keys(Q, K, random, one); }}};
}

// What attention is given at one length, and what a forward and backward over it costs.
struct Point {
  Timing seconds;
  MemoryUse memory;
};

template <class Attend>
Point run_point(const Effort& effort, std::int64_t length, Attend attend) {
  const Tensor Q = random_tensor({length, kState}, 1), K = random_tensor({length, kState}, 2, .25);
  const Tensor value = random_tensor({length, kInner}, 3), dy = random_tensor({length, kInner}, 4);
  const FlushDenormals flush;
  const MemoryWatch memory;
  const Timing seconds = measure(effort, [&] {
    const Var y = attend(Var::leaf(Q), Var::leaf(K), Var::leaf(value));
    backward(y, dy);
  });
  return {seconds, memory.read()};
}

// The points of a curve, and its slope over those from `from` on.
class Curve {
 public:
  explicit Curve(double from) : from_(from) {}
  void add(std::int64_t length, double seconds) {
    if (static_cast<double>(length) < from_) return;
    lengths_.push_back(static_cast<double>(length));
    seconds_.push_back(seconds);
  }
  void report(Bench& bench, const std::string& name) const {
    if (lengths_.size() < 2) return;
    const auto text = [](double length) { return length_text(std::llround(length)); };
    Row row{.name = fmt::format("{}: slope, {} to {}", name, text(lengths_.front()),
                                text(lengths_.back()))};
    row.slope = log_slope(lengths_, seconds_);
    bench.report.add(row);
  }

 private:
  double from_;
  std::vector<double> lengths_, seconds_;
};

void sparse_points(Bench& bench, const std::vector<std::int64_t>& lengths) {
  Curve attention(kSlopeFrom), index(kSlopeFrom);
  double pairs_a_token = 0;
  for (const std::int64_t length : lengths) {
    const Sequences one = Sequences::single(length);
    const Tensor Q = random_tensor({length, kState}, 1),
                 K = random_tensor({length, kState}, 2, .25);
    const Tensor score = random_tensor({length}, 5);
    const KeySet keys = hax_keys(Q, K, score, one);
    // Lists of a million queries would need gigabytes; from here on their number hardly changes.
    if (length <= kSlopeFrom) pairs_a_token = count_pairs(keys) / static_cast<double>(length);
    const auto tokens = static_cast<double>(length);
    const Point point = run_point(bench.effort(), length, [&](Var q, Var k, Var v) {
      return sparse_attention(q, k, v, keys);
    });
    attention.add(length, point.seconds.median);
    Row row{.name = fmt::format("HAX attention, L = {}", length_text(length))};
    const Work work{.other = tokens * pairs_a_token * (2 * N + 2 * E + 6 * N + 4 * E),
                    .exps = tokens * pairs_a_token * 2};
    row.time(point.seconds).per_token(tokens).over(floor_seconds(work, bench.one.arithmetic));
    row.bytes = point.memory.pool_bytes;
    bench.report.add(row);

    const MemoryWatch memory;
    const Timing building = measure(bench.effort(.3), [&] { hax_keys(Q, K, score, one); });
    index.add(length, building.median);
    Row built{.name = fmt::format("HAX index, L = {}", length_text(length))};
    built.time(building).per_token(tokens);
    built.bytes = memory.read().pool_bytes;
    bench.report.add(built);
  }
  attention.report(bench, "HAX attention");
  index.report(bench, "HAX index");
}

void dense_points(Bench& bench, const std::vector<std::int64_t>& lengths) {
  Curve curve(0);
  for (const std::int64_t length : lengths) {
    const Sequences one = Sequences::single(length);
    const Point point = run_point(
        bench.effort(), length, [&](Var q, Var k, Var v) { return full_attention(q, k, v, one); });
    curve.add(length, point.seconds.median);
    const auto tokens = static_cast<double>(length);
    const double pairs = tokens * (tokens + 1) / 2;
    Row row{.name = fmt::format("dense attention, L = {}", length_text(length))};
    const Work work{.other = pairs * (2 * N + 2 * E + 6 * N + 4 * E), .exps = 2 * pairs};
    row.time(point.seconds).per_token(tokens).over(floor_seconds(work, bench.one.arithmetic));
    row.bytes = point.memory.pool_bytes;
    bench.report.add(row);
  }
  curve.report(bench, "dense attention");
}

}  // namespace

void bench_index(Bench& bench) {
  bench.report.section("index", "Which keys a query sees",
                       "Building the index of one sequence, 32 keys a component, one thread.",
                       {"ns_per_token", "median_s", "fastest_s", "runs"});
  for (const std::int64_t length : {std::int64_t{463}, kSlopeFrom}) {
    for (const IndexCase& index : index_cases(length)) {
      const Sequences one = Sequences::single(length);
      Row row{.name = fmt::format("L = {}: {}", length_text(length), index.name)};
      row.time(measure(bench.effort(.3), [&] { index.build(one); }))
          .per_token(static_cast<double>(length));
      row.threads = 1;
      bench.report.add(row);
    }
  }
}

void bench_attention(Bench& bench) {
  bench.report.section(
      "attention", "Attention on one sequence, forward and backward, one thread",
      "16 states, values of 128, random. Slope: of log time over log length. Pool peak: above the "
      "inputs.",
      {"ns_per_token", "median_s", "floor_s", "ratio", "bytes", "slope"});
  if (bench.quick) {
    sparse_points(bench, {463, 4096, 65536, 131072});
    dense_points(bench, {1024, 4096});
  } else {
    sparse_points(bench, {463, 1024, 4096, 16384, 65536, 131072, 262144, 524288, 1048576});
    dense_points(bench, {1024, 2048, 4096, 8192, 16384});
  }
}

}  // namespace hax::bench
