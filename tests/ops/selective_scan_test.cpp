#include "ops/selective_scan/selective_scan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <ranges>
#include <utility>

#include "engine/memory.h"
#include "ops/selective_scan/selective_scan_kernels.h"
#include "ops/selective_scan/selective_scan_vector.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr std::size_t kInputs = 7;
using Inputs = std::array<Tensor, kInputs>;  // u, dt, A, B, C, D, initial_state or undefined
const std::array<const char*, kInputs> kNames{"u", "dt", "A", "B", "C", "D", "initial_state"};

Inputs random_inputs(std::int64_t tokens, std::int64_t dim, std::int64_t state, std::int64_t rows) {
  Inputs in{random_tensor({tokens, dim}, 1),
            random_tensor({tokens, dim}, 2),
            random_tensor({dim, state}, 3),
            random_tensor({tokens, state}, 4),
            random_tensor({rows, state}, 5),
            random_tensor({dim}, 6),
            Tensor{}};
  // Steps from 0.002 to 1.1 and decay rates from nearly nothing to some hundreds, as in a model.
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = std::exp(3 * std::tanh(dt) - 3);
  }
  for (std::int64_t i = 0; i < in[2].numel(); ++i) {
    double& A = in[2].data<double>()[i];
    A = -std::exp(2 * A);
  }
  // What a float32 input would be, so that both precisions see the same numbers.
  for (std::size_t i = 0; i < kInputs - 1; ++i) {
    in[i] = in[i].to(DType::float32).to(DType::float64);
  }
  return in;
}

Inputs with_state(Inputs in, std::int64_t sequences) {
  const Tensor state = random_tensor({sequences, in[2].size(0), in[2].size(1)}, 8);
  in[6] = state.to(DType::float32).to(DType::float64);
  return in;
}

Inputs to(const Inputs& in, DType dtype) {
  Inputs out;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) out[i] = in[i].to(dtype);
  }
  return out;
}

struct Result {
  Tensor y, final_state;
  Inputs gradients;
};

// Gradients of sum(y dy) + sum(final_state dfinal); either seed may be undefined.
struct Seeds {
  Tensor dy, dfinal;
};

// A scalar whose gradients with respect to the variables are the seeds, where defined.
Var loss_of(const std::vector<Var>& variables, const std::vector<Tensor>& seeds) {
  const Tensor zero = Tensor::zeros({}, variables.front().dtype());
  return record("loss", zero, variables, [seeds](const Tensor&) { return Grads(seeds); });
}

using Leaves = std::array<Var, kInputs>;

Leaves leaves_of(const Inputs& in) {
  Leaves x;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) x[i] = Var::leaf(in[i]);
  }
  return x;
}

ScanResult run_scan(const Leaves& x, const Sequences& sequences, const Tensor& rows = {}) {
  return selective_scan(x[0], x[1], x[2], x[3], x[4], x[5], sequences, rows, x[6]);
}
ScanResult run_scan(const Inputs& in, const Sequences& sequences) {
  return selective_scan(in[0], in[1], in[2], in[3], in[4], in[5], sequences, {}, in[6]);
}

// The op and its gradients under the seeds.
Result run(const Inputs& in, const Sequences& sequences, const Tensor& rows, const Seeds& seeds) {
  const Leaves x = leaves_of(in);
  const ScanResult out = run_scan(x, sequences, rows);
  backward(loss_of({out.y, out.final_state}, {seeds.dy, seeds.dfinal}));
  Result result{out.y.value(), out.final_state.value(), {}};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) result.gradients[i] = x[i].grad();
  }
  return result;
}
Result run(const Inputs& in, const Sequences& sequences, const Tensor& rows, const Tensor& dy) {
  return run(in, sequences, rows, Seeds{dy, {}});
}

std::vector<std::int32_t> all_rows(std::int64_t tokens) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The recurrence and its adjoint, one channel and one state at a time, every h kept.
Result naive(const Inputs& in, const Sequences& sequences, const std::vector<std::int32_t>& rows,
             const Seeds& seeds) {
  const std::int64_t tokens = in[0].size(0), dim = in[2].size(0), state = in[2].size(1);
  const auto wanted = static_cast<std::int64_t>(rows.size());
  Result r{Tensor::zeros({wanted, dim}, DType::float64),
           Tensor::zeros({sequences.count(), dim, state}, DType::float64),
           {}};
  std::array<const double*, kInputs> x{};
  std::array<double*, kInputs> dx{};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (!in[i].defined()) continue;
    r.gradients[i] = Tensor::zeros(in[i].shape(), DType::float64);
    x[i] = in[i].data<double>();
    dx[i] = r.gradients[i].data<double>();
  }
  std::vector<std::int64_t> row_of(static_cast<std::size_t>(tokens), -1);
  for (std::int64_t j = 0; j < wanted; ++j) row_of[rows[j]] = j;
  const auto [u, dt, A, B, C, D, initial] = x;
  const auto [du, ddt, dA, dB, dC, dD, dinitial] = dx;
  double *y = r.y.data<double>(), *last = r.final_state.data<double>();
  const Tensor dy = seeds.dy.defined() ? seeds.dy : Tensor::zeros(r.y.shape(), DType::float64);
  const double* seed = dy.data<double>();
  const double* dlast = seeds.dfinal.defined() ? seeds.dfinal.data<double>() : nullptr;

  for (std::int64_t j = 0; j < wanted; ++j) {
    for (std::int64_t e = 0; e < dim; ++e) {
      const std::int64_t te = rows[j] * dim + e;
      y[j * dim + e] = D[e] * u[te];
      du[te] += D[e] * seed[j * dim + e];
      dD[e] += seed[j * dim + e] * u[te];
    }
  }
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
    for (std::int64_t e = 0; e < dim; ++e) {
      for (std::int64_t n = 0; n < state; ++n) {
        const double a = A[e * state + n];
        const std::int64_t at = (s * dim + e) * state + n;
        std::vector<double> h{initial != nullptr ? initial[at] : 0};
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int64_t te = t * dim + e, j = row_of[t];
          h.push_back(std::exp(dt[te] * a) * h.back() + dt[te] * B[t * state + n] * u[te]);
          if (j >= 0) y[j * dim + e] += C[j * state + n] * h.back();
        }
        last[at] = h.back();
        double dh = dlast != nullptr ? dlast[at] : 0;
        for (std::int64_t t = end - 1; t >= begin; --t) {
          const std::int64_t te = t * dim + e, tn = t * state + n, j = row_of[t];
          if (j >= 0) {
            dh += seed[j * dim + e] * C[j * state + n];
            dC[j * state + n] += seed[j * dim + e] * h[t - begin + 1];
          }
          const double decay = std::exp(dt[te] * a);
          du[te] += dh * dt[te] * B[tn];
          dB[tn] += dh * dt[te] * u[te];
          dA[e * state + n] += dh * decay * h[t - begin] * dt[te];
          ddt[te] += dh * (B[tn] * u[te] + decay * h[t - begin] * a);
          dh *= decay;
        }
        if (dinitial != nullptr) dinitial[at] = dh;
      }
    }
  }
  return r;
}

void check_close(const Result& result, const Result& expected, double tolerance) {
  CHECK(relative_error(result.y, expected.y) < tolerance);
  CHECK(relative_error(result.final_state, expected.final_state) < tolerance);
  for (std::size_t i = 0; i < kInputs; ++i) {
    INFO("gradient of " << kNames[i]);
    REQUIRE(result.gradients[i].defined() == expected.gradients[i].defined());
    if (!expected.gradients[i].defined()) continue;
    CHECK(relative_error(result.gradients[i], expected.gradients[i]) < tolerance);
  }
}

Tensor gather(const Tensor& x, const std::vector<std::int32_t>& rows) {
  const std::int64_t dim = x.size(1);
  Tensor out = Tensor::empty({static_cast<std::int64_t>(rows.size()), dim}, x.dtype());
  for (std::size_t j = 0; j < rows.size(); ++j) {
    Tensor row = out.rows(static_cast<std::int64_t>(j), static_cast<std::int64_t>(j) + 1);
    copy(row, x.rows(rows[j], rows[j] + 1));
  }
  return out;
}

// Tokens from[s]..until[s] of every sequence: a pack of pieces.
Inputs piece_of(const Inputs& in, const Sequences& pack, const std::vector<std::int64_t>& from,
                const std::vector<std::int64_t>& until) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    for (std::int64_t t = from[s]; t < until[s]; ++t) {
      tokens.push_back(static_cast<std::int32_t>(pack.begin(s) + t));
    }
  }
  Inputs piece = in;
  for (const std::size_t i : {0, 1, 3, 4}) piece[i] = gather(in[i], tokens);
  return piece;
}

}  // namespace

TEST_CASE("selective_scan and its gradients equal the recurrence") {
  struct Sizes {
    std::int64_t dim, state;
  };
  const std::vector<Sequences> packs = {Sequences::of_lengths({37, 0, 1, 16, 0, 17, 15}),
                                        Sequences::single(53), Sequences::single(1),
                                        Sequences::single(0), Sequences::of_lengths({0, 32})};
  for (const auto& [dim, state] : {Sizes{16, 16}, Sizes{37, 7}, Sizes{1, 1}, Sizes{8, 300},
                                   Sizes{130, 3}, Sizes{5, 0}, Sizes{0, 4}}) {
    for (const Sequences& pack : packs) {
      INFO(dim << " channels, " << state << " states, " << pack.tokens() << " tokens");
      const Inputs in = random_inputs(pack.tokens(), dim, state, pack.tokens());
      const Tensor dy = random_tensor(in[0].shape(), 7);
      const Result expected = naive(in, pack, all_rows(pack.tokens()), {dy, {}});
      check_close(run(in, pack, {}, dy), expected, 1e-12);
      check_close(run(to(in, DType::float32), pack, {}, dy.to(DType::float32)), expected, 5e-6);

      const Inputs from = with_state(in, pack.count());
      const Tensor dfinal = random_tensor(from[6].shape(), 9);
      const Result carried = naive(from, pack, all_rows(pack.tokens()), {dy, dfinal});
      check_close(run(from, pack, {}, Seeds{dy, dfinal}), carried, 1e-12);
      const Seeds seeds32{dy.to(DType::float32), dfinal.to(DType::float32)};
      check_close(run(to(from, DType::float32), pack, {}, seeds32), carried, 5e-6);
    }
  }
}

TEST_CASE("selective_scan sends gradients from whichever output has one") {
  const Sequences pack = Sequences::of_lengths({37, 0, 1, 16});
  const Tensor dy = random_tensor({54, 19}, 7), dfinal = random_tensor({4, 19, 5}, 9);
  const Inputs in = random_inputs(54, 19, 5, 54);
  for (const Seeds& seeds : {Seeds{dy, {}}, Seeds{{}, dfinal}, Seeds{dy, dfinal}}) {
    for (const Inputs& inputs : {in, with_state(in, 4)}) {
      check_close(run(inputs, pack, {}, seeds), naive(inputs, pack, all_rows(54), seeds), 1e-12);
    }
  }
  // And to the initial state alone.
  const Inputs from = with_state(in, 4);
  const Var initial = Var::leaf(from[6]);
  const ScanResult out =
      selective_scan(from[0], from[1], from[2], from[3], from[4], from[5], pack, {}, initial);
  backward(loss_of({out.y, out.final_state}, {dy, dfinal}));
  CHECK(relative_error(initial.grad(), naive(from, pack, all_rows(54), {dy, dfinal}).gradients[6]) <
        1e-12);
}

TEST_CASE("selective_scan passes the state of an empty sequence through, and starts from zero") {
  const Sequences pack = Sequences::of_lengths({0, 5, 0});
  const Inputs from = to(with_state(random_inputs(5, 19, 18, 5), 3), DType::float32);
  const Tensor dfinal = random_tensor({3, 19, 18}, 9, DType::float32);
  const Result result = run(from, pack, {}, Seeds{{}, dfinal});
  for (const std::int64_t s : {0, 2}) {
    CHECK(same_bits(result.final_state.rows(s, s + 1), from[6].rows(s, s + 1)));
    CHECK(same_bits(result.gradients[6].rows(s, s + 1), dfinal.rows(s, s + 1)));
  }
  Inputs in = from;
  in[6] = {};
  const Result zero = run(in, pack, {}, Seeds{{}, dfinal});
  CHECK(same_bits(zero.final_state.rows(0, 1), Tensor::zeros({1, 19, 18})));
  in[6] = Tensor::zeros({3, 19, 18});
  const Result given = run(in, pack, {}, Seeds{{}, dfinal});
  CHECK(same_bits(given.y, zero.y));
  CHECK(same_bits(given.final_state, zero.final_state));
}

TEST_CASE("selective_scan in pieces is that in one piece, to the bit") {
  // Pieces of every length; a pack whose sequences end at different times.
  const std::vector<std::int64_t> lengths{67, 0, 1, 30};
  const Sequences pack = Sequences::of_lengths(lengths);
  const Inputs wide = with_state(random_inputs(98, 21, 19, 98), 4);
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Inputs in = to(wide, dtype);
    const ScanResult whole = run_scan(in, pack);
    for (const std::vector<std::int64_t>& steps :
         {std::vector<std::int64_t>{1}, {2}, {5, 0, 17, 1}, {15}, {16}, {31, 3}, {66, 1}, {100}}) {
      INFO("first piece " << steps[0]);
      std::vector<std::int64_t> done(4, 0);
      Tensor state = in[6];
      for (std::size_t step = 0;
           std::ranges::any_of(std::views::iota(0, 4), [&](int s) { return done[s] < lengths[s]; });
           ++step) {
        std::vector<std::int64_t> next = done, count;
        for (std::size_t s = 0; s < 4; ++s) {
          next[s] = std::min(lengths[s], done[s] + steps[step % steps.size()]);
          count.push_back(next[s] - done[s]);
        }
        Inputs piece = piece_of(in, pack, done, next);
        piece[6] = state;
        const Sequences pieces = Sequences::of_lengths(count);
        const ScanResult part = run_scan(piece, pieces);
        for (std::int64_t s = 0; s < 4; ++s) {
          const std::int64_t first = pack.begin(s);
          CHECK(same_bits(part.y.value().rows(pieces.begin(s), pieces.end(s)),
                          whole.y.value().rows(first + done[s], first + next[s])));
        }
        state = part.final_state.value();
        done = next;
      }
      CHECK(same_bits(state, whole.final_state.value()));
    }
  }
}

TEST_CASE("gradients of selective_scan through two pieces are those of one") {
  const std::int64_t tokens = 70;
  const Sequences pack = Sequences::single(tokens);
  const Inputs in = with_state(random_inputs(tokens, 11, 6, tokens), 1);
  const Tensor dy = random_tensor({tokens, 11}, 7), dfinal = random_tensor({1, 11, 6}, 9);
  const Result expected = run(in, pack, {}, Seeds{dy, dfinal});
  for (const std::int64_t cut : {0, 1, 15, 16, 37, 69, 70}) {
    INFO("cut at " << cut);
    Leaves first = leaves_of(piece_of(in, pack, {0}, {cut}));
    Leaves second = leaves_of(piece_of(in, pack, {cut}, {tokens}));
    for (const std::size_t i : {2, 5}) second[i] = first[i];
    const ScanResult one = run_scan(first, Sequences::single(cut));
    second[6] = one.final_state;
    const ScanResult two = run_scan(second, Sequences::single(tokens - cut));
    backward(
        loss_of({one.y, two.y, two.final_state}, {dy.rows(0, cut), dy.rows(cut, tokens), dfinal}));
    for (const std::size_t i : {2, 5, 6}) {
      INFO("gradient of " << kNames[i]);
      CHECK(relative_error(first[i].grad(), expected.gradients[i]) < 1e-12);
    }
    for (const std::size_t i : {0, 1, 3, 4}) {
      INFO("gradient of " << kNames[i]);
      CHECK(relative_error(first[i].grad(), expected.gradients[i].rows(0, cut)) < 1e-12);
      CHECK(relative_error(second[i].grad(), expected.gradients[i].rows(cut, tokens)) < 1e-12);
    }
  }
}

TEST_CASE("selective_scan of the rows wanted equals all of it at those rows") {
  const Sequences pack = Sequences::of_lengths({20, 3, 0, 40});
  const std::vector<std::vector<std::int32_t>> choices = {
      {62}, {0, 1, 15, 16, 19, 20, 21, 23, 39, 55, 62}, {}, all_rows(63), {30, 31, 33}};
  for (const auto& rows : choices) {
    INFO(rows.size() << " rows");
    const auto wanted = static_cast<std::int64_t>(rows.size());
    const Inputs all = random_inputs(63, 19, 5, 63);
    Inputs some = all;
    some[4] = gather(all[4], rows);
    const Tensor dy = random_tensor({wanted, 19}, 7);
    const Tensor index = Tensor::from(rows);
    check_close(run(some, pack, index, dy), naive(some, pack, rows, {dy, {}}), 1e-12);
    const Seeds seeds{dy, random_tensor({4, 19, 5}, 9)};
    check_close(run(with_state(some, 4), pack, index, seeds),
                naive(with_state(some, 4), pack, rows, seeds), 1e-12);

    // Bit for bit, and like a gradient of zero for the rows that nobody reads.
    const Inputs all32 = to(all, DType::float32), some32 = to(some, DType::float32);
    const Tensor dy32 = dy.to(DType::float32);
    Tensor dy_all = Tensor::zeros({63, 19});
    for (std::size_t j = 0; j < rows.size(); ++j) {
      Tensor row = dy_all.rows(rows[j], rows[j] + 1);
      copy(row, dy32.rows(static_cast<std::int64_t>(j), static_cast<std::int64_t>(j) + 1));
    }
    const Result expected = run(all32, pack, {}, dy_all);
    const Result result = run(some32, pack, index, dy32);
    CHECK(same_bits(result.y, gather(expected.y, rows)));
    CHECK(same_bits(result.final_state, expected.final_state));
    for (std::size_t i = 0; i < kInputs - 1; ++i) {
      INFO("gradient of " << kNames[i]);
      const Tensor& gradient = expected.gradients[i];
      const Tensor compared = i == 4 ? gather(gradient, rows) : gradient;
      CHECK(relative_error(result.gradients[i], compared) == 0);
    }
  }
}

TEST_CASE("selective_scan of a pack is that of its sequences, to the bit") {
  const Sequences pack = Sequences::of_lengths({33, 1, 0, 16, 50});
  const Inputs in = to(with_state(random_inputs(100, 21, 16, 100), 5), DType::float32);
  const Tensor dy = random_tensor({100, 21}, 7, DType::float32);
  const Tensor dfinal = random_tensor({5, 21, 16}, 9, DType::float32);
  const Result all = run(in, pack, {}, Seeds{dy, dfinal});
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    const std::int64_t begin = pack.begin(s), end = pack.end(s);
    Inputs part = in;
    for (const std::size_t i : {0, 1, 3, 4}) part[i] = in[i].rows(begin, end);
    part[6] = in[6].rows(s, s + 1);
    const Result one =
        run(part, pack.slice(s, s + 1), {}, Seeds{dy.rows(begin, end), dfinal.rows(s, s + 1)});
    CHECK(same_bits(one.y, all.y.rows(begin, end)));
    CHECK(same_bits(one.final_state, all.final_state.rows(s, s + 1)));
    CHECK(same_bits(one.gradients[6], all.gradients[6].rows(s, s + 1)));
    for (const std::size_t i : {0, 1, 3, 4}) {
      INFO("gradient of " << kNames[i]);
      CHECK(same_bits(one.gradients[i], all.gradients[i].rows(begin, end)));
    }
  }
}

TEST_CASE("selective_scan does not look ahead") {
  const Sequences pack = Sequences::single(40);
  const Inputs in = to(random_inputs(40, 9, 4, 40), DType::float32);
  const Tensor y = run_scan(in, pack).y.value();
  for (const std::size_t i : {0, 1, 3, 4}) {
    INFO("changed " << kNames[i]);
    Inputs changed = in;
    changed[i] = in[i].clone();
    Tensor row = changed[i].rows(23, 24);
    fill(row, 0.75);
    const Tensor z = run_scan(changed, pack).y.value();
    CHECK(same_bits(z.rows(0, 23), y.rows(0, 23)));
    CHECK_FALSE(same_bits(z.rows(23, 24), y.rows(23, 24)));
  }
}

TEST_CASE("selective_scan without a gradient wanted gives the same and keeps no states") {
  const Sequences pack = Sequences::of_lengths({300, 212});
  const Inputs in = to(random_inputs(512, 64, 16, 512), DType::float32);
  const auto peak = [&](const Var& u) {
    reset_peak_memory(kCpu);
    const std::int64_t before = memory_stats(kCpu).bytes_in_use;
    const Tensor y = selective_scan(u, in[1], in[2], in[3], in[4], in[5], pack).y.value();
    return std::pair(y, memory_stats(kCpu).peak_bytes_in_use - before);
  };
  const auto [y, bytes] = peak(in[0]);
  const auto [kept, kept_bytes] = peak(Var::leaf(in[0]));
  CHECK(same_bits(y, kept));
  CHECK(kept_bytes - bytes >= scan_chunks(Cpu{}, pack) * 16 * 64 * 4);
}

TEST_CASE("selective_scan keeps no state at either end for the backward") {
  // Many short sequences: the states at their ends are more than those before the chunks.
  const Sequences pack = Sequences::of_lengths(std::vector<std::int64_t>(64, 16));
  const Inputs in = to(with_state(random_inputs(1024, 64, 32, 1024), 64), DType::float32);
  const std::int64_t states = scan_chunks(Cpu{}, pack) * 32 * 64 * 4, y_bytes = 1024 * 64 * 4;
  for (const bool given : {false, true}) {
    const Var u = Var::leaf(in[0]);
    Tensor initial = given ? in[6].clone() : Tensor{};
    const std::int64_t before = memory_stats(kCpu).bytes_in_use;
    const Var y =
        selective_scan(u, in[1], in[2], in[3], in[4], in[5], pack, {}, std::exchange(initial, {}))
            .y;
    const std::int64_t kept = memory_stats(kCpu).bytes_in_use - before;
    CHECK(kept == states + y_bytes - (given ? in[6].bytes() : 0));
  }
}

TEST_CASE("selective_scan forgets everything at a step that decays all") {
  // dt A far below the smallest exponent: the states before must vanish, not turn into rubbish.
  Inputs in = to(random_inputs(4, 3, 2, 4), DType::float32);
  fill(in[2], -1e20);
  const Sequences pack = Sequences::single(4);
  const Tensor y = run_scan(in, pack).y.value();
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t e = 0; e < 3; ++e) {
      const auto at = [&](std::size_t i, std::int64_t j) { return in[i].data<float>()[j]; };
      const double drive = at(1, t * 3 + e) * at(0, t * 3 + e);
      const double dot = at(3, t * 2) * at(4, t * 2) + at(3, t * 2 + 1) * at(4, t * 2 + 1);
      CHECK(y.data<float>()[t * 3 + e] ==
            doctest::Approx(drive * dot + at(5, e) * at(0, t * 3 + e)).epsilon(1e-5));
    }
  }
  in[1].data<float>()[2] = std::nanf("");
  const Tensor bad = run_scan(in, pack).y.value();
  CHECK(std::isnan(bad.data<float>()[2]));
  CHECK(bad.data<float>()[1] == y.data<float>()[1]);
}

TEST_CASE("selective_scan computes the same numbers beside a step that decays all") {
  // One large step takes its chunk and its block of channels through the longer form of the decays.
  const Sequences pack = Sequences::single(70);
  const Inputs in = to(random_inputs(70, 19, 6, 70), DType::float32);
  const Tensor dy = random_tensor({70, 19}, 7, DType::float32);
  Inputs changed = in;
  changed[1] = in[1].clone();
  for (const std::int64_t t : {3, 40}) changed[1].data<float>()[t * 19 + 5] = 1e6F;
  const Result before = run(in, pack, {}, dy), after = run(changed, pack, {}, dy);
  const auto differing = [](const Tensor& x, const Tensor& y) {
    std::vector<std::int64_t> columns;
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      if (x.data<float>()[i] != y.data<float>()[i]) columns.push_back(i % x.size(1));
    }
    std::ranges::sort(columns);
    columns.erase(std::ranges::unique(columns).begin(), columns.end());
    return columns;
  };
  const std::vector<std::int64_t> only_its_channel{5};
  CHECK(differing(before.y, after.y) == only_its_channel);
  CHECK(differing(before.gradients[0], after.gradients[0]) == only_its_channel);
  CHECK(differing(before.gradients[1], after.gradients[1]) == only_its_channel);
}

TEST_CASE("decays of selective_scan are exact to 1.5e-7 in both forms") {
  using Vector = scan::Vec<float>;
  const scan::Decay<float, true> decay;
  const scan::Decay<float, false> decay_short;
  const Vector one = Vector{} + 1;
  const auto of = [&](float x) { return decay(one, Vector{} + x)[0]; };
  double worst = 0;
  std::int64_t count = 0, disagree = 0;
  for (std::uint32_t bits = 0x20000000U; bits < 0x42fc0000U; bits += 997) {  // 1e-19 .. 126
    const float x = -std::bit_cast<float>(bits);
    const double exact = std::exp2(static_cast<double>(x));
    worst = std::max(worst, std::abs(of(x) / exact - 1));
    if (x >= scan::kLeastExponent) disagree += of(x) != decay_short(one, Vector{} + x)[0];
    ++count;
  }
  CHECK(count > 500'000);
  CHECK(worst <= 1.5e-7);
  CHECK(disagree == 0);
  CHECK(of(0) == 1);
  for (const float x : {-127.0F, -128.0F, -300.0F, -1e9F, -1e20F, -3e38F}) CHECK(of(x) == 0);
  CHECK(std::isnan(of(std::nanf(""))));
}

TEST_CASE("gradients of selective_scan that have died out are zero, not denormal") {
  // Only the last of many tokens is read: what arrives at the first is 0.7^1000 of it.
  const std::int64_t tokens = 1000;
  Inputs in = to(with_state(random_inputs(tokens, 19, 6, 1), 1), DType::float32);
  fill(in[1], 1);
  fill(in[2], std::log(0.7F));
  const Tensor last = Tensor::from<std::int32_t>({static_cast<std::int32_t>(tokens) - 1});
  const Result result =
      run(in, Sequences::single(tokens), last, random_tensor({1, 19}, 7, DType::float32));
  CHECK(same_bits(result.gradients[6], Tensor::zeros(result.gradients[6].shape())));
  const Tensor& du = result.gradients[0];
  CHECK(same_bits(du.rows(0, 500), Tensor::zeros({500, 19})));
  for (std::int64_t i = 0; i < du.numel(); ++i) {
    const float x = du.data<float>()[i];
    REQUIRE(std::fpclassify(x) != FP_SUBNORMAL);
    if (i >= (tokens - 100) * 19) REQUIRE(x != 0);
  }
}

TEST_CASE("selective_scan refuses shapes, types and rows that do not fit") {
  const Inputs in = random_inputs(6, 3, 2, 6);
  const Sequences pack = Sequences::single(6);
  const auto error_with = [&](std::size_t i, const Tensor& instead, const Tensor& rows = {}) {
    Inputs x = in;
    x[i] = instead;
    return error_of([&] { selective_scan(x[0], x[1], x[2], x[3], x[4], x[5], pack, rows, x[6]); });
  };
  CHECK(error_with(1, random_tensor({6, 4}, 1)) ==
        "selective_scan: u is [6, 3] and dt is [6, 4], expected [T, E] for both");
  CHECK(error_with(2, random_tensor({4, 2}, 1)) ==
        "selective_scan: A is [4, 2], expected [E, N] with E = 3");
  CHECK(error_with(3, random_tensor({6, 3}, 1)) ==
        "selective_scan: B is [6, 3], expected [T, N] = [6, 2]");
  CHECK(error_with(4, random_tensor({5, 2}, 1)) ==
        "selective_scan: C is [5, 2], expected [R, N] = [6, 2]");
  CHECK(error_with(5, random_tensor({4}, 1)) == "selective_scan: D is [4], expected [E] = [3]");
  CHECK(error_with(5, in[5].to(DType::float32)) ==
        "selective_scan: u is float64 and D is float32, expected equal types");
  CHECK(error_with(6, random_tensor({1, 2, 3}, 1)) ==
        "selective_scan: initial_state is [1, 2, 3], expected [S, E, N] = [1, 3, 2]");
  CHECK(error_with(6, random_tensor({1, 3, 2}, 1, DType::float32)) ==
        "selective_scan: u is float64 and initial_state is float32, expected equal types");
  const Tensor C = random_tensor({2, 2}, 1);
  CHECK(error_with(4, in[4], Tensor::from<std::int32_t>({1, 2})) ==
        "selective_scan: C is [6, 2], expected [R, N] = [2, 2]");
  CHECK(error_with(4, C, Tensor::from<std::int32_t>({3, 3})) ==
        "selective_scan: rows[1] is 3, expected at least 4 and below 6: strictly increasing "
        "positions of the pack");
  CHECK(error_with(4, C, Tensor::from<std::int32_t>({3, 6})) ==
        "selective_scan: rows[1] is 6, expected at least 4 and below 6: strictly increasing "
        "positions of the pack");
  CHECK(error_with(4, C, Tensor::from<std::int32_t>({-1, 3})) ==
        "selective_scan: rows[0] is -1, expected at least 0 and below 6: strictly increasing "
        "positions of the pack");
  CHECK(error_with(4, C, Tensor::from<std::int64_t>({1, 3})) ==
        "selective_scan: rows is int64 [2], expected int32 [R]");
  CHECK(error_of([&] {
          selective_scan(in[0], in[1], in[2], in[3], in[4], in[5], Sequences::single(7));
        }).starts_with("selective_scan: "));
}
