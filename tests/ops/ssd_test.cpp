#include <doctest/doctest.h>

#include <cmath>

#include "engine/memory.h"
#include "tests/ops/ssd_support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::ssd_op;

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
