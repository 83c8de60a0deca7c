// Packs long enough for the channels to be cut into pieces for threads.
#include <doctest/doctest.h>

#include "engine/parallel.h"
#include "tests/ops/selective_scan_support.h"
#include "tests/support/compare.h"
#include "tests/support/threads.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::scan_op;

namespace {

// Sequences whose ends fall everywhere, longer than what is added up together, and empty ones.
const Sequences kPack = Sequences::of_lengths({5001, 0, 1, 3190, 16});
constexpr std::int64_t kState = 3;

Seeds random_seeds(std::int64_t rows, std::int64_t dim) {
  return {random_tensor({rows, dim}, 11), random_tensor({kPack.count(), dim, kState}, 12)};
}

}  // namespace

TEST_CASE("selective_scan of a long pack and its gradients equal the recurrence") {
  REQUIRE(kPack.tokens() >= 2 * kRowsWorthAPiece);
  for (const std::int64_t dim : {31, 75}) {
    INFO(dim << " channels");
    const Inputs in =
        with_state(random_inputs(kPack.tokens(), dim, kState, kPack.tokens()), kPack.count());
    const std::vector<std::int32_t> all = all_rows(kPack.tokens());
    Seeds seeds = random_seeds(kPack.tokens(), dim);
    check_close(run(in, kPack, {}, seeds), naive(in, kPack, all, seeds), 1e-12);
    seeds.dy = {};
    check_close(run(in, kPack, {}, seeds), naive(in, kPack, all, seeds), 1e-12);
  }
}

TEST_CASE("selective_scan of some rows of a long pack equals the recurrence") {
  std::vector<std::int32_t> rows;
  for (std::int32_t t = 7; t < kPack.tokens(); t += 1 + t % 5) rows.push_back(t);
  const auto wanted = static_cast<std::int64_t>(rows.size());
  const Inputs in = random_inputs(kPack.tokens(), 70, kState, wanted);
  const Seeds seeds = random_seeds(wanted, 70);
  check_close(run(in, kPack, Tensor::from(rows), seeds), naive(in, kPack, rows, seeds), 1e-12);
}

TEST_CASE("selective_scan of a long pack gives the same bits on any number of threads") {
  const Inputs in =
      to(with_state(random_inputs(kPack.tokens(), 100, kState, kPack.tokens()), kPack.count()),
         DType::float32);
  const Seeds wide = random_seeds(kPack.tokens(), 100);
  const Seeds seeds{wide.dy.to(DType::float32), wide.dfinal.to(DType::float32)};
  const Result expected = [&] {
    const Threads one(1);
    return run(in, kPack, {}, seeds);
  }();
  for (const int threads : {2, 3}) {
    const Threads several(threads);
    const Result result = run(in, kPack, {}, seeds);
    CHECK(same_bits(result.y, expected.y));
    CHECK(same_bits(result.final_state, expected.final_state));
    for (std::size_t i = 0; i < kInputs; ++i) {
      CHECK(same_bits(result.gradients[i], expected.gradients[i]));
    }
  }
}
