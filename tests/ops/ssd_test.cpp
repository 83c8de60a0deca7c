#include "ops/ssd/ssd.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "engine/memory.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr std::size_t kInputs = 7;
using Inputs = std::array<Tensor, kInputs>;  // x, dt, A, B, C, D, initial_state
const std::array<const char*, kInputs> kNames{"x", "dt", "A", "B", "C", "D", "initial_state"};

struct Sizes {
  std::int64_t heads, head_dim, state, groups;
};

Inputs random_inputs(const Sizes& size, const Sequences& pack, std::int64_t rows) {
  const std::int64_t tokens = pack.tokens(), heads = size.heads;
  Inputs in{random_tensor({tokens, heads * size.head_dim}, 1),
            random_tensor({tokens, heads}, 2),
            random_tensor({heads}, 3),
            random_tensor({tokens, size.groups * size.state}, 4),
            random_tensor({rows, size.groups * size.state}, 5),
            random_tensor({heads}, 6),
            random_tensor({pack.count(), heads, size.head_dim, size.state}, 7)};
  // Steps from 0.002 to 1.1 and decay rates from nearly nothing to some tens, as in a model.
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = std::exp(3 * std::tanh(dt) - 3);
  }
  for (std::int64_t h = 0; h < heads; ++h) {
    double& A = in[2].data<double>()[h];
    A = -std::exp(2 * A);
  }
  // What a float32 input would be, so that both precisions see the same numbers.
  for (Tensor& tensor : in) tensor = tensor.to(DType::float32).to(DType::float64);
  return in;
}

Inputs to(const Inputs& in, DType dtype) {
  Inputs out;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) out[i] = in[i].to(dtype);
  }
  return out;
}

SsdOptions options(const Sizes& size, std::int64_t chunk) {
  return {.heads = size.heads, .groups = size.groups, .chunk = chunk};
}

struct Result {
  Tensor y, final_state;
  Inputs gradients;
};

// Gradients of sum(y dy) + sum(final_state dfinal); either seed may be undefined.
struct Seeds {
  Tensor dy, dfinal;
};

Seeds random_seeds(const Sizes& size, const Sequences& pack, std::int64_t rows) {
  return {random_tensor({rows, size.heads * size.head_dim}, 8),
          random_tensor({pack.count(), size.heads, size.head_dim, size.state}, 9)};
}

// A scalar whose gradients with respect to the outputs are the seeds.
Var loss_of(const SsdResult& result, const Seeds& seeds) {
  std::vector<Var> inputs;
  std::vector<Tensor> gradients;
  if (seeds.dy.defined()) {
    inputs.push_back(result.y);
    gradients.push_back(seeds.dy);
  }
  if (seeds.dfinal.defined()) {
    inputs.push_back(result.final_state);
    gradients.push_back(seeds.dfinal);
  }
  const Tensor zero = Tensor::zeros({}, gradients[0].dtype());
  return record("loss", zero, inputs, [gradients](const Tensor&) { return Grads(gradients); });
}

Result run(const Inputs& in, const Sequences& pack, const SsdOptions& opts, const Tensor& rows,
           const Seeds& seeds) {
  std::array<Var, kInputs> v;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) v[i] = Var::leaf(in[i]);
  }
  const SsdResult result = ssd(v[0], v[1], v[2], v[3], v[4], v[5], pack, opts, rows, v[6]);
  backward(loss_of(result, seeds));
  Result out{result.y.value(), result.final_state.value(), {}};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) out.gradients[i] = v[i].grad();
  }
  return out;
}

std::vector<std::int32_t> all_rows(std::int64_t tokens) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The recurrence and its adjoint, one number of one state at a time, every state kept.
Result naive(const Inputs& in, const Sizes& size, const Sequences& pack,
             const std::vector<std::int32_t>& rows, const Seeds& seeds) {
  const auto [heads, head_dim, states, groups] = size;
  const std::int64_t tokens = pack.tokens(), channels = heads * head_dim, width = groups * states;
  Result r{Tensor::zeros({static_cast<std::int64_t>(rows.size()), channels}, DType::float64),
           Tensor::zeros({pack.count(), heads, head_dim, states}, DType::float64),
           {}};
  std::array<const double*, kInputs> v{};
  std::array<double*, kInputs> dv{};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (!in[i].defined()) continue;
    r.gradients[i] = Tensor::zeros(in[i].shape(), DType::float64);
    v[i] = in[i].data<double>();
    dv[i] = r.gradients[i].data<double>();
  }
  const auto [x, dt, A, B, C, D, initial] = v;
  const auto [dx, ddt, dA, dB, dC, dD, dinitial] = dv;
  const double* dy = seeds.dy.defined() ? seeds.dy.data<double>() : nullptr;
  const double* dfinal = seeds.dfinal.defined() ? seeds.dfinal.data<double>() : nullptr;
  double *y = r.y.data<double>(), *last = r.final_state.data<double>();
  std::vector<std::int64_t> row_of(static_cast<std::size_t>(tokens), -1);
  for (std::size_t j = 0; j < rows.size(); ++j) row_of[rows[j]] = static_cast<std::int64_t>(j);

  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t row = row_of[t];
    for (std::int64_t e = 0; row >= 0 && e < channels; ++e) {
      const double seed = dy != nullptr ? dy[row * channels + e] : 0;
      y[row * channels + e] = D[e / head_dim] * x[t * channels + e];
      dx[t * channels + e] += D[e / head_dim] * seed;
      dD[e / head_dim] += seed * x[t * channels + e];
    }
  }
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    for (std::int64_t index = 0; index < channels * states; ++index) {
      const std::int64_t n = index % states, e = index / states, h = e / head_dim;
      const std::int64_t column = h / (heads / groups) * states + n;
      const std::int64_t at = s * channels * states + index;
      std::vector<double> S{initial != nullptr ? initial[at] : 0};
      for (std::int64_t t = pack.begin(s); t < pack.end(s); ++t) {
        const double step = dt[t * heads + h], row = static_cast<double>(row_of[t]);
        S.push_back(std::exp(step * A[h]) * S.back() +
                    step * x[t * channels + e] * B[t * width + column]);
        if (row >= 0) y[row_of[t] * channels + e] += C[row_of[t] * width + column] * S.back();
      }
      last[at] = S.back();
      double dS = dfinal != nullptr ? dfinal[at] : 0;
      for (std::int64_t t = pack.end(s) - 1; t >= pack.begin(s); --t) {
        const std::int64_t row = row_of[t], i = t - pack.begin(s);
        if (row >= 0 && dy != nullptr) {
          dS += dy[row * channels + e] * C[row * width + column];
          dC[row * width + column] += dy[row * channels + e] * S[i + 1];
        }
        const double step = dt[t * heads + h], decay = std::exp(step * A[h]);
        const double u = x[t * channels + e], b = B[t * width + column];
        dx[t * channels + e] += dS * step * b;
        dB[t * width + column] += dS * step * u;
        ddt[t * heads + h] += dS * (u * b + A[h] * decay * S[i]);
        dA[h] += dS * step * decay * S[i];
        dS *= decay;
      }
      if (dinitial != nullptr) dinitial[at] = dS;
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

void compare_with_recurrence(const Sizes& size, const Sequences& pack, std::int64_t chunk) {
  INFO(size.heads << " heads of " << size.head_dim << ", state " << size.state << ", "
                  << size.groups << " groups, " << pack.tokens() << " tokens, chunk " << chunk);
  const Inputs in = random_inputs(size, pack, pack.tokens());
  const Seeds seeds = random_seeds(size, pack, pack.tokens());
  const Result expected = naive(in, size, pack, all_rows(pack.tokens()), seeds);
  check_close(run(in, pack, options(size, chunk), {}, seeds), expected, 1e-12);
  const Seeds seeds32{seeds.dy.to(DType::float32), seeds.dfinal.to(DType::float32)};
  check_close(run(to(in, DType::float32), pack, options(size, chunk), {}, seeds32), expected, 1e-5);
}

// Rows of x, B, C (and whatever else has one a token) of tokens begin..end.
Inputs part(const Inputs& in, std::int64_t begin, std::int64_t end, Tensor initial) {
  return {in[0].rows(begin, end), in[1].rows(begin, end), in[2],
          in[3].rows(begin, end), in[4].rows(begin, end), in[5],
          std::move(initial)};
}

Tensor gather(const Tensor& x, const std::vector<std::int32_t>& rows) {
  Tensor out = Tensor::empty({static_cast<std::int64_t>(rows.size()), x.size(1)}, x.dtype());
  for (std::size_t j = 0; j < rows.size(); ++j) {
    const auto at = static_cast<std::int64_t>(j);
    Tensor row = out.rows(at, at + 1);
    copy(row, x.rows(rows[j], rows[j] + 1));
  }
  return out;
}

}  // namespace

TEST_CASE("ssd and its gradients equal the recurrence for every chunk size and pack") {
  const std::vector<Sequences> packs = {
      Sequences::of_lengths({17, 0, 1, 150, 0}), Sequences::single(64), Sequences::single(1),
      Sequences::single(0), Sequences::of_lengths({0, 2, 16, 33})};
  for (const Sequences& pack : packs) {
    for (const std::int64_t chunk : {1, 3, 16, 64, 1000}) {
      compare_with_recurrence({4, 3, 5, 2}, pack, chunk);
    }
  }
}

TEST_CASE("ssd and its gradients equal the recurrence for every size") {
  const Sequences pack = Sequences::of_lengths({37, 1, 0, 20});
  compare_with_recurrence({8, 16, 32, 1}, pack, 256);
  for (const std::int64_t head_dim : {1, 5, 96}) {
    for (const std::int64_t state : {1, 7, 300}) {
      compare_with_recurrence({2, head_dim, state, 1}, pack, 256);
    }
  }
  compare_with_recurrence({1, 16, 16, 1}, pack, 256);
  compare_with_recurrence({6, 17, 15, 3}, pack, 16);
  compare_with_recurrence({35, 2, 3, 5}, pack, 64);
  compare_with_recurrence({20, 1, 2, 20}, pack, 16);
}

TEST_CASE("ssd with rows wanted is that with all rows, where they are wanted") {
  const Sizes size{4, 5, 6, 2};
  const Sequences pack = Sequences::of_lengths({20, 0, 3, 200});
  const Inputs in = random_inputs(size, pack, pack.tokens());
  const Seeds seeds = random_seeds(size, pack, pack.tokens());
  std::vector<std::int32_t> every_third;
  for (std::int32_t t = 40; t < 180; t += 3) every_third.push_back(t);
  const std::vector<std::vector<std::int32_t>> wanted = {
      {}, {222}, {0, 1, 2, 15, 16, 19, 20, 22, 23, 222}, every_third, all_rows(pack.tokens())};
  for (const std::vector<std::int32_t>& list : wanted) {
    INFO(list.size() << " rows");
    const Tensor rows = Tensor::from(list);
    Inputs some = in;
    some[4] = gather(in[4], list);
    const Seeds some_seeds{gather(seeds.dy, list), seeds.dfinal};
    const Result expected = naive(some, size, pack, list, some_seeds);
    for (const std::int64_t chunk : {3, 256}) {
      check_close(run(some, pack, options(size, chunk), rows, some_seeds), expected, 1e-12);
    }
  }
}

TEST_CASE("ssd sends gradients from whichever output has one") {
  const Sizes size{2, 3, 4, 1};
  const Sequences pack = Sequences::of_lengths({18, 0, 140});
  const Inputs in = random_inputs(size, pack, pack.tokens());
  const Seeds both = random_seeds(size, pack, pack.tokens());
  for (const Seeds& seeds : {Seeds{both.dy, {}}, Seeds{{}, both.dfinal}}) {
    const Result expected = naive(in, size, pack, all_rows(pack.tokens()), seeds);
    check_close(run(in, pack, options(size, 16), {}, seeds), expected, 1e-12);
  }
}

TEST_CASE("ssd without an initial state starts from zero") {
  const Sizes size{2, 3, 4, 1};
  const Sequences pack = Sequences::of_lengths({18, 0, 5});
  Inputs in = random_inputs(size, pack, pack.tokens());
  in[6] = {};
  const Seeds seeds = random_seeds(size, pack, pack.tokens());
  const Result result = run(in, pack, options(size, 16), {}, seeds);
  check_close(result, naive(in, size, pack, all_rows(pack.tokens()), seeds), 1e-12);
  CHECK(relative_error(result.final_state.rows(1, 2), Tensor::zeros({1, 2, 3, 4})) == 0);
}

TEST_CASE("ssd of a sequence in two parts, the state handed on, is that in one piece") {
  const Sizes size{4, 5, 9, 2};
  const std::int64_t tokens = 300;
  const Sequences whole = Sequences::single(tokens);
  const Inputs in = random_inputs(size, whole, tokens);
  const Seeds seeds = random_seeds(size, whole, tokens);
  const SsdOptions opts = options(size, 64);
  const Result expected = run(in, whole, opts, {}, seeds);
  for (const std::int64_t cut : {0, 1, 16, 129, 299, 300}) {
    INFO("cut at " << cut);
    std::array<Var, kInputs> first, second;
    const Inputs a = part(in, 0, cut, in[6]), b = part(in, cut, tokens, {});
    for (std::size_t i = 0; i < kInputs; ++i) {
      first[i] = Var::leaf(a[i]);
      if (b[i].defined()) second[i] = Var::leaf(b[i]);
    }
    const SsdResult one = ssd(first[0], first[1], first[2], first[3], first[4], first[5],
                              Sequences::single(cut), opts, {}, first[6]);
    const SsdResult two = ssd(second[0], second[1], second[2], second[3], second[4], second[5],
                              Sequences::single(tokens - cut), opts, {}, one.final_state);
    const Var join = loss_of(two, {seeds.dy.rows(cut, tokens), seeds.dfinal});
    const Tensor dy = seeds.dy.rows(0, cut);
    const auto pass_on = [dy](const Tensor& g) { return Grads{dy, g}; };
    backward(record("loss", Tensor::zeros({}, DType::float64), {one.y, join}, pass_on));

    CHECK(relative_error(one.y.value(), expected.y.rows(0, cut)) < 1e-12);
    CHECK(relative_error(two.y.value(), expected.y.rows(cut, tokens)) < 1e-12);
    CHECK(relative_error(two.final_state.value(), expected.final_state) < 1e-12);
    CHECK(relative_error(first[6].grad(), expected.gradients[6]) < 1e-12);
    for (const std::size_t i : {0, 1, 3, 4}) {
      INFO("gradient of " << kNames[i]);
      CHECK(relative_error(first[i].grad(), expected.gradients[i].rows(0, cut)) < 1e-11);
      CHECK(relative_error(second[i].grad(), expected.gradients[i].rows(cut, tokens)) < 1e-11);
    }
    for (const std::size_t i : {2, 5}) {
      Tensor sum = first[i].grad().clone();
      accumulate(sum, second[i].grad());
      CHECK(relative_error(sum, expected.gradients[i]) < 1e-11);
    }
  }
}

TEST_CASE("ssd of a pack is that of its sequences, to the bit") {
  const Sizes size{4, 16, 8, 1};
  const Sequences pack = Sequences::of_lengths({23, 0, 1, 150});
  const Inputs in = to(random_inputs(size, pack, pack.tokens()), DType::float32);
  const Seeds wide = random_seeds(size, pack, pack.tokens());
  const Seeds seeds{wide.dy.to(DType::float32), wide.dfinal.to(DType::float32)};
  const SsdOptions opts = options(size, 256);
  const Result all = run(in, pack, opts, {}, seeds);
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    const std::int64_t begin = pack.begin(s), end = pack.end(s);
    const Result one = run(part(in, begin, end, in[6].rows(s, s + 1)), pack.slice(s, s + 1), opts,
                           {}, {seeds.dy.rows(begin, end), seeds.dfinal.rows(s, s + 1)});
    CHECK(same_bits(one.y, all.y.rows(begin, end)));
    CHECK(same_bits(one.final_state, all.final_state.rows(s, s + 1)));
    for (const std::size_t i : {0, 1, 3, 4}) {
      CHECK(same_bits(one.gradients[i], all.gradients[i].rows(begin, end)));
    }
    CHECK(same_bits(one.gradients[6], all.gradients[6].rows(s, s + 1)));
  }
}

TEST_CASE("ssd keeps what is not a number within its sequence") {
  const Sizes size{4, 5, 7, 2};
  const Sequences pack = Sequences::of_lengths({20, 5, 30});
  const Inputs in = random_inputs(size, pack, 55);
  const Seeds seeds = random_seeds(size, pack, 55);
  const Result clean = run(in, pack, options(size, 256), {}, seeds);
  for (const std::size_t i : {0, 1, 3, 4}) {
    INFO(kNames[i]);
    Inputs broken = in;
    broken[i] = in[i].clone();
    for (std::int64_t k = 0; k < 20 * in[i].size(1); ++k) broken[i].data<double>()[k] = NAN;
    const Result result = run(broken, pack, options(size, 256), {}, seeds);
    CHECK(std::isnan(result.y.data<double>()[0]));
    CHECK(same_bits(result.y.rows(20, 55), clean.y.rows(20, 55)));
    CHECK(same_bits(result.final_state.rows(1, 3), clean.final_state.rows(1, 3)));
    for (const std::size_t g : {0, 1, 3, 4}) {
      CHECK(same_bits(result.gradients[g].rows(20, 55), clean.gradients[g].rows(20, 55)));
    }
    CHECK(same_bits(result.gradients[6].rows(1, 3), clean.gradients[6].rows(1, 3)));
  }
}

TEST_CASE("ssd does not look ahead") {
  const Sizes size{4, 5, 7, 2};
  const Sequences pack = Sequences::single(40);
  const Inputs in = to(random_inputs(size, pack, 40), DType::float32);
  const auto y_of = [&](const Inputs& v) {
    return ssd(v[0], v[1], v[2], v[3], v[4], v[5], pack, options(size, 256), {}, v[6]).y.value();
  };
  const Tensor y = y_of(in);
  for (const std::int64_t changed : {0, 5, 16, 25, 39}) {
    for (const std::size_t i : {0, 1, 3, 4}) {
      Inputs other = in;
      other[i] = in[i].clone();
      float* row = other[i].data<float>() + changed * in[i].size(1);
      for (std::int64_t k = 0; k < in[i].size(1); ++k) row[k] += 0.5F;
      const Tensor z = y_of(other);
      INFO(kNames[i] << " of token " << changed);
      CHECK(same_bits(z.rows(0, changed), y.rows(0, changed)));
      CHECK_FALSE(same_bits(z.rows(changed, changed + 1), y.rows(changed, changed + 1)));
    }
  }
}

TEST_CASE("ssd with decays that underflow within a chunk stays exact") {
  const Sizes size{3, 4, 5, 1};
  const Sequences pack = Sequences::single(60);
  Inputs in = random_inputs(size, pack, 60);
  // Steps of 1: a decay of e^-6 passes through the denormal numbers, e^-700 is zero at once.
  fill(in[1], 1);
  in[2] = Tensor::from(std::vector<double>{-6, -700, -1e-3});
  const Seeds seeds = random_seeds(size, pack, 60);
  const Result expected = naive(in, size, pack, all_rows(60), seeds);
  check_close(run(in, pack, options(size, 256), {}, seeds), expected, 1e-12);
  const Seeds seeds32{seeds.dy.to(DType::float32), seeds.dfinal.to(DType::float32)};
  check_close(run(to(in, DType::float32), pack, options(size, 256), {}, seeds32), expected, 1e-5);
}

TEST_CASE("ssd keeps one state in 128 tokens for the backward, and none without") {
  const Sizes size{8, 16, 32, 1};
  const Sequences pack = Sequences::single(1280);
  const Inputs in = to(random_inputs(size, pack, 1280), DType::float32);
  const auto kept = [&](bool gradient) {
    const std::int64_t before = memory_stats(kCpu).bytes_in_use;
    const Var x = gradient ? Var::leaf(in[0]) : Var(in[0]);
    const SsdResult result = ssd(x, in[1], in[2], in[3], in[4], in[5], pack, options(size, 256));
    return memory_stats(kCpu).bytes_in_use - before - result.y.value().bytes();
  };
  const std::int64_t state = 8 * 16 * 32 * 4;
  CHECK(kept(false) < 2 * state);
  CHECK(kept(true) > 10 * state);
  CHECK(kept(true) < 20 * state);
}

TEST_CASE("ssd refuses what does not fit") {
  const Sizes size{4, 3, 5, 2};
  const Sequences pack = Sequences::of_lengths({4, 2});
  const Inputs in = random_inputs(size, pack, 6);
  const auto error = [&](Inputs v, SsdOptions opts, const Tensor& rows = {}) {
    return error_of([&] { ssd(v[0], v[1], v[2], v[3], v[4], v[5], pack, opts, rows, v[6]); });
  };
  const auto with = [&](std::size_t i, Tensor tensor) {
    Inputs v = in;
    v[i] = std::move(tensor);
    return v;
  };
  const SsdOptions good = options(size, 16);
  CHECK(error(in, good) == "");
  CHECK(error(in, {.heads = 4, .groups = 3}) ==
        "ssd: 4 heads in 3 groups, expected at least one group and a multiple of the groups");
  CHECK(error(in, {.heads = 0, .groups = 1}).starts_with("ssd: 0 heads in 1 groups"));
  CHECK(error(in, {.heads = 4, .groups = 2, .chunk = 0}) == "ssd: chunk is 0, expected at least 1");
  CHECK(error(in, {.heads = 5, .groups = 1}) ==
        "ssd: x is [6, 12], expected [T, heads P] with 5 heads and P >= 1");
  CHECK(error(with(1, random_tensor({6, 3}, 1)), good) ==
        "ssd: dt is [6, 3], expected [T, heads] = [6, 4]");
  CHECK(error(with(2, random_tensor({3}, 1)), good) ==
        "ssd: A is [3] and D is [4], expected [heads] = [4] for both");
  CHECK(error(with(3, random_tensor({6, 9}, 1)), good) ==
        "ssd: B is [6, 9], expected [T, groups N] with T = 6, 2 groups and N >= 1");
  CHECK(error(with(4, random_tensor({5, 10}, 1)), good) ==
        "ssd: C is [5, 10], expected [R, groups N] = [6, 10]");
  CHECK(error(with(6, random_tensor({2, 4, 5, 3}, 1)), good) ==
        "ssd: initial_state is [2, 4, 5, 3], expected [S, heads, P, N] = [2, 4, 3, 5]");
  CHECK(error(with(1, in[1].to(DType::float32)), good) ==
        "ssd: x is float64 and dt is float32, expected equal types");
  CHECK(error(in, good, Tensor::from(std::vector<std::int64_t>{0, 1})) ==
        "ssd: rows is int64 [2], expected int32 [R]");
  const Inputs two = with(4, random_tensor({2, 10}, 1));
  CHECK(error(two, good, Tensor::from(std::vector<std::int32_t>{3, 3})) ==
        "ssd: rows[1] is 3, expected at least 4 and below 6: strictly increasing positions of the "
        "pack");
  CHECK(error(two, good, Tensor::from(std::vector<std::int32_t>{-1, 3}))
            .starts_with("ssd: rows[0] is -1"));
  CHECK(error(two, good, Tensor::from(std::vector<std::int32_t>{0, 6}))
            .starts_with("ssd: rows[1] is 6"));
  CHECK(error_of([&] {
          ssd(in[0], in[1], in[2], in[3], in[4], in[5], Sequences::single(7), good);
        }).starts_with("ssd: "));
}
