// selective_scan and ssd on CUDA against the CPU: packs, rows, states, sizes that fit nothing.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <functional>

#include "ops/selective_scan/selective_scan.h"
#include "ops/ssd/ssd.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr double kBound = 1e-5;
// The results of CUDA in bfloat16 against the CPU's in float32 from the same rounded inputs: half a
// unit in the last of 8 places relative to the tensor's largest number, and the rounding of what
// gradients pass through.
constexpr double kBf16Bound = 1.0 / 128;

// u or x, dt > 0, A < 0, B, C, D, initial state or undefined; as float32.
using Inputs = std::array<Tensor, 7>;

Inputs as_float(Inputs in) {
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = std::exp(3 * std::tanh(dt) - 3);
  }
  for (std::int64_t i = 0; i < in[2].numel(); ++i) {
    double& A = in[2].data<double>()[i];
    A = -std::exp(2 * A);
  }
  for (Tensor& tensor : in) {
    if (tensor.defined()) tensor = tensor.to(DType::float32);
  }
  return in;
}

struct Outputs {
  Var y, final_state;
};
using Op = std::function<Outputs(const std::array<Var, 7>&)>;

// y, the final state and the gradients of all inputs.
std::vector<Tensor> run(const Op& op, const Inputs& in, Device device, DType dtype, bool from_y,
                        bool from_state) {
  std::array<Var, 7> v;
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (in[i].defined()) v[i] = Var::leaf(in[i].to(dtype).to(device));
  }
  const Outputs out = op(v);
  std::vector<Var> seen;
  std::vector<Tensor> seeds;
  const auto look_at = [&](const Var& x, std::uint64_t seed) {
    seen.push_back(x);
    const Tensor numbers = random_tensor(x.shape(), seed).to(DType::bfloat16);
    seeds.push_back(numbers.to(x.dtype()).to(device));
  };
  if (from_y) look_at(out.y, 11);
  if (from_state) look_at(out.final_state, 12);
  const Tensor zero = Tensor::zeros({}, dtype, device);
  backward(record("loss", zero, seen, [seeds](const Tensor&) { return Grads(seeds); }));
  std::vector<Tensor> all{out.y.value(), out.final_state.value()};
  for (const Var& x : v) {
    if (x.value().defined()) all.push_back(x.grad());
  }
  for (Tensor& tensor : all) tensor = tensor.to(kCpu);
  return all;
}

void compare(const Op& op, const Inputs& in, bool from_y = true, bool from_state = true) {
  const auto on = [&](Device device, DType dtype) {
    return run(op, in, device, dtype, from_y, from_state);
  };
  // In float64: a gradient of A adds what nearly cancels, so the CPU's float32 is no truth either.
  const std::vector<Tensor> cpu = on(kCpu, DType::float64);
  const std::vector<Tensor> cuda = on(kCuda, DType::float32), again = on(kCuda, DType::float32);
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    INFO("y, final state, gradients: number " << i);
    // A's gradient is one number a head, and the terms of two heads' sums can nearly cancel: the
    // CPU's float32 is up to 2.7e-6 off here, where every other case is below 1e-6.
    const double bound = i == 4 ? 5 * kBound : kBound;
    CHECK(relative_error(cuda[i], cpu[i].to(DType::float32)) <= bound);
    CHECK(same_bits(cuda[i], again[i]));
  }
}

void compare_bf16(const Op& op, Inputs in) {
  for (Tensor& tensor : in) {
    if (tensor.defined()) tensor = tensor.to(DType::bfloat16).to(DType::float32);
  }
  const std::vector<Tensor> cpu = run(op, in, kCpu, DType::float32, true, true);
  const std::vector<Tensor> cuda = run(op, in, kCuda, DType::bfloat16, true, true);
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    INFO("y, final state, gradients: number " << i);
    CHECK(cuda[i].dtype() == DType::bfloat16);
    CHECK(relative_error(cuda[i].to(DType::float32), cpu[i]) <= kBf16Bound);
  }
}

Tensor every(std::int64_t step, std::int64_t tokens) {
  std::vector<std::int32_t> rows;
  for (std::int64_t t = step / 2; t < tokens; t += step) {
    rows.push_back(static_cast<std::int32_t>(t));
  }
  return Tensor::from(rows);
}

std::int64_t rows_of(const Tensor& rows, const Sequences& pack) {
  return rows.defined() ? rows.size(0) : pack.tokens();
}

Inputs scan_inputs(const Sequences& pack, std::int64_t dim, std::int64_t state, const Tensor& rows,
                   bool with_state) {
  const std::int64_t tokens = pack.tokens();
  return as_float({random_tensor({tokens, dim}, 1), random_tensor({tokens, dim}, 2),
                   random_tensor({dim, state}, 3), random_tensor({tokens, state}, 4),
                   random_tensor({rows_of(rows, pack), state}, 5), random_tensor({dim}, 6),
                   with_state ? random_tensor({pack.count(), dim, state}, 7) : Tensor{}});
}
Op scan(const Sequences& pack, const Tensor& rows) {
  return [=](const std::array<Var, 7>& v) {
    const ScanResult r = selective_scan(v[0], v[1], v[2], v[3], v[4], v[5], pack, rows, v[6]);
    return Outputs{r.y, r.final_state};
  };
}

Inputs ssd_inputs(const Sequences& pack, const SsdOptions& options, std::int64_t head_dim,
                  std::int64_t state, const Tensor& rows, bool with_state) {
  const std::int64_t tokens = pack.tokens(), heads = options.heads, width = options.groups * state;
  return as_float(
      {random_tensor({tokens, heads * head_dim}, 1), random_tensor({tokens, heads}, 2),
       random_tensor({heads}, 3), random_tensor({tokens, width}, 4),
       random_tensor({rows_of(rows, pack), width}, 5), random_tensor({heads}, 6),
       with_state ? random_tensor({pack.count(), heads, head_dim, state}, 7) : Tensor{}});
}
Op dual(const Sequences& pack, const SsdOptions& options, const Tensor& rows) {
  return [=](const std::array<Var, 7>& v) {
    const SsdResult r = ssd(v[0], v[1], v[2], v[3], v[4], v[5], pack, options, rows, v[6]);
    return Outputs{r.y, r.final_state};
  };
}

}  // namespace

TEST_CASE("selective_scan on CUDA equals the CPU, the same to the bit in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  const Tensor all;
  struct Case {
    const char* what;
    std::vector<std::int64_t> lengths;
    std::int64_t dim, state, every;  // every so many rows are wanted, 0: all
    bool with_state = true;
  };
  for (const Case& c :
       std::vector<Case>{{"a pack", {0, 17, 1, 33, 0, 16, 0}, 5, 16, 0},
                         {"some rows, from zero", {40, 3, 0, 21}, 35, 16, 7, false},
                         {"one token", {1}, 1, 1, 0},
                         {"no tokens", {0, 0}, 3, 2, 0},
                         {"no sequences", {}, 3, 2, 0},
                         {"more channels than a block", {19}, 130, 3, 0},
                         {"more states than a launch", {18, 5}, 2, 131, 3},
                         {"odd states", {20}, 3, 21, 0, false},
                         {"many sequences", std::vector<std::int64_t>(150, 2), 3, 5, 0},
                         {"one thread a channel", {40}, 200, 4, 3},
                         {"in pieces", {300, 0, 411, 1}, 3, 5, 0},
                         {"in pieces, some rows, from zero", {530}, 9, 16, 50, false}}) {
    INFO(c.what);
    const Sequences pack = Sequences::of_lengths(c.lengths);
    const Tensor rows = c.every > 0 ? every(c.every, pack.tokens()) : all;
    compare(scan(pack, rows), scan_inputs(pack, c.dim, c.state, rows, c.with_state));
  }
  for (const std::int64_t length : {23, 400}) {
    const Sequences one = Sequences::single(length);
    compare(scan(one, all), scan_inputs(one, 3, 4, all, true), true, false);
    compare(scan(one, all), scan_inputs(one, 3, 4, all, true), false, true);
    compare_bf16(scan(one, all), scan_inputs(one, 6, 4, all, true));
  }
}

// A captured step takes packs of fewer tokens than its tensors have: what is behind the last
// sequence, whose end the device alone knows, gets zeros.
void compare_with_rest(const Op& op, const Inputs& in, std::int64_t kept, std::int64_t tokens,
                       const Op& op_of_kept, const Inputs& in_of_kept) {
  const std::vector<Tensor> all = run(op, in, kCuda, DType::float32, true, true);
  const std::vector<Tensor> part = run(op_of_kept, in_of_kept, kCuda, DType::float32, true, true);
  for (std::size_t i = 0; i < all.size(); ++i) {
    INFO("y, final state, gradients: number " << i);
    if (all[i].size(0) != tokens) {
      CHECK(relative_error(all[i], part[i]) <= kBound);
      continue;
    }
    CHECK(same_bits(all[i].rows(0, kept), part[i]));
    const Tensor rest = all[i].rows(kept, tokens);
    CHECK(same_bits(rest, Tensor::zeros(rest.shape())));
  }
}

TEST_CASE("selective_scan on CUDA: tokens behind the last sequence") {
  if constexpr (!kHasCuda) return;
  for (const std::int64_t length : {20, 400}) {
    const Sequences kept = Sequences::of_lengths({7, length});
    const Sequences both = Sequences::of_lengths({7, length + 43});
    both.keep("offsets", kept.offsets_on(kCuda));
    Inputs in = scan_inputs(both, 35, 16, {}, true), less = in;
    for (const std::size_t i : {0, 1, 3, 4}) less[i] = in[i].rows(0, length + 7);
    compare_with_rest(scan(both, {}), in, length + 7, length + 50, scan(kept, {}), less);
  }
}

TEST_CASE("ssd on CUDA equals the CPU, the same to the bit in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  const Tensor all;
  struct Case {
    const char* what;
    std::vector<std::int64_t> lengths;
    std::int64_t heads, groups, head_dim, state, every;
    bool with_state = true;
  };
  for (const Case& c :
       std::vector<Case>{{"a pack", {0, 65, 1, 130, 0, 64, 0}, 2, 1, 16, 32, 0},
                         {"some rows, from zero", {70, 3, 0, 21}, 4, 2, 5, 7, 9, false},
                         {"one token", {1}, 1, 1, 1, 1, 0},
                         {"no tokens", {0, 0}, 2, 1, 3, 2, 0},
                         {"no sequences", {}, 2, 1, 3, 2, 0},
                         {"two sets of heads, two groups", {67}, 18, 2, 3, 4, 0},
                         {"large heads and states", {66}, 1, 1, 70, 67, 0},
                         {"many small heads", {30}, 8, 1, 33, 17, 4, false}}) {
    INFO(c.what);
    const Sequences pack = Sequences::of_lengths(c.lengths);
    const SsdOptions options{.heads = c.heads, .groups = c.groups};
    const Tensor rows = c.every > 0 ? every(c.every, pack.tokens()) : all;
    compare(dual(pack, options, rows),
            ssd_inputs(pack, options, c.head_dim, c.state, rows, c.with_state));
  }
  const Sequences one = Sequences::single(75);
  const SsdOptions options{.heads = 2};
  compare(dual(one, options, all), ssd_inputs(one, options, 4, 8, all, true), true, false);
  compare(dual(one, options, all), ssd_inputs(one, options, 4, 8, all, true), false, true);
  compare_bf16(dual(one, options, all), ssd_inputs(one, options, 4, 8, all, true));
}
