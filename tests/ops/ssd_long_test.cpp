// Packs long enough for the heads to be cut into pieces for threads.
#include <doctest/doctest.h>

#include "engine/parallel.h"
#include "tests/ops/ssd_support.h"
#include "tests/support/compare.h"
#include "tests/support/threads.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::ssd_op;

namespace {

// Sequences whose ends fall everywhere, longer than what is added up together, and empty ones.
const Sequences kPack = Sequences::of_lengths({5001, 0, 1, 3190, 16});

}  // namespace

TEST_CASE("ssd of a long pack and its gradients equal the recurrence") {
  REQUIRE(kPack.tokens() >= 2 * kRowsWorthAPiece);
  // Pieces within a group, of a few groups, across the edges of groups, and one head alone.
  for (const Sizes& size :
       {Sizes{5, 3, 4, 1}, Sizes{8, 2, 3, 4}, Sizes{9, 2, 2, 3}, Sizes{1, 3, 4, 1}}) {
    const Inputs in = random_inputs(size, kPack, kPack.tokens());
    const Seeds seeds = random_seeds(size, kPack, kPack.tokens());
    check_close(run(in, kPack, options(size, 256), {}, seeds),
                naive(in, size, kPack, all_rows(kPack.tokens()), seeds), 1e-12);
  }
}

TEST_CASE("ssd of some rows of a long pack equals the recurrence, and so do its final states") {
  const Sizes size{6, 2, 3, 2};
  std::vector<std::int32_t> rows;
  for (std::int32_t t = 7; t < kPack.tokens(); t += 1 + t % 5) rows.push_back(t);
  const auto wanted = static_cast<std::int64_t>(rows.size());
  const Inputs in = random_inputs(size, kPack, wanted);
  Seeds seeds = random_seeds(size, kPack, wanted);
  check_close(run(in, kPack, options(size, 16), Tensor::from(rows), seeds),
              naive(in, size, kPack, rows, seeds), 1e-12);
  seeds.dy = {};
  check_close(run(in, kPack, options(size, 16), Tensor::from(rows), seeds),
              naive(in, size, kPack, rows, seeds), 1e-12);
}

TEST_CASE("ssd of a long pack gives the same bits on any number of threads") {
  const Sizes size{8, 5, 6, 2};
  const Inputs in = to(random_inputs(size, kPack, kPack.tokens()), DType::float32);
  const Seeds wide = random_seeds(size, kPack, kPack.tokens());
  const Seeds seeds{wide.dy.to(DType::float32), wide.dfinal.to(DType::float32)};
  const Result expected = [&] {
    const Threads one(1);
    return run(in, kPack, options(size, 256), {}, seeds);
  }();
  for (const int threads : {2, 3}) {
    const Threads several(threads);
    const Result result = run(in, kPack, options(size, 256), {}, seeds);
    CHECK(same_bits(result.y, expected.y));
    CHECK(same_bits(result.final_state, expected.final_state));
    for (std::size_t i = 0; i < kInputs; ++i) {
      CHECK(same_bits(result.gradients[i], expected.gradients[i]));
    }
  }
}
