#include <doctest/doctest.h>

#include <algorithm>
#include <ranges>
#include <utility>

#include "engine/memory.h"
#include "ops/selective_scan/selective_scan_kernels.h"
#include "tests/ops/selective_scan_support.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::scan_op;

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
