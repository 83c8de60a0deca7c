#include "ops/join_rows/join_rows.h"

#include <doctest/doctest.h>

#include <array>

#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("join_rows puts the past of every sequence before its present") {
  const Sequences past = Sequences::of_lengths({2, 0, 1, 0});
  const Sequences present = Sequences::of_lengths({1, 2, 0, 0});
  const Tensor a = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
  const Tensor b = Tensor::from<float>({10, 20, 30, 40, 50, 60}, {3, 2});
  const Var joined = join_rows(a, past, b, present);
  const Tensor expected = Tensor::from<float>({1, 2, 3, 4, 10, 20, 30, 40, 50, 60, 5, 6}, {6, 2});
  CHECK(same_bits(joined.value(), expected));
  const Sequences both = past.joined(present);
  CHECK(both.count() == 4);
  CHECK(both.length(0) == 3);
  CHECK(both.length(1) == 2);
  CHECK(both.length(2) == 1);
  CHECK(both.length(3) == 0);
  CHECK(same_bits(join_tensors(Tensor::from<std::int64_t>({7, 8, 9}), past,
                               Tensor::from<std::int64_t>({1, 2, 3}), present),
                  Tensor::from<std::int64_t>({7, 8, 1, 2, 3, 9})));
}

TEST_CASE("join_rows sends every gradient back to its row") {
  const Sequences past = Sequences::of_lengths({2, 0, 1});
  const Sequences present = Sequences::of_lengths({1, 2, 0});
  const Var a = Var::leaf(random_tensor({3, 5}, 1)), b = Var::leaf(random_tensor({3, 5}, 2));
  const Tensor da = random_tensor({3, 5}, 3), db = random_tensor({3, 5}, 4);
  backward(join_rows(a, past, b, present), join_tensors(da, past, db, present));
  CHECK(same_bits(a.grad(), da));
  CHECK(same_bits(b.grad(), db));
}

TEST_CASE("join_rows refuses what does not fit") {
  const Sequences two = Sequences::single(2), three = Sequences::single(3);
  const Tensor a = random_tensor({2, 5}, 1), b = random_tensor({3, 5}, 2);
  CHECK(error_of([&] {
          join_rows(a, two, random_tensor({3, 4}, 2), three);
        }) ==
        "join_rows: float64 [2, 5] and float64 [3, 4], expected one type and rows of one shape");
  CHECK(error_of([&] { join_rows(a, two, b.to(DType::float32), three); }) ==
        "join_rows: float64 [2, 5] and float32 [3, 5], expected one type and rows of one shape");
  CHECK(error_of([&] { join_rows(a, three, b, three); }) ==
        "join_rows: 2 rows for a pack of 3 tokens");
  CHECK(error_of([&] { join_rows(a, two, b, two); }) == "join_rows: 3 rows for a pack of 2 tokens");
  CHECK(error_of([&] {
          two.joined(Sequences::of_lengths({1, 1}));
        }) == "1 sequences cannot be followed by 2");
}

TEST_CASE("join_rows on CUDA equals the CPU") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  using Lengths = std::vector<std::int64_t>;
  for (const auto& [before, after] :
       std::vector<std::array<Lengths, 2>>{{{{2, 0, 1, 0, 0}, {1, 2, 0, 0, 40}}},
                                           {{{0, 0}, {3, 0}}},
                                           {{{7, 1}, {0, 0}}},
                                           {{{0}, {0}}},
                                           {{{}, {}}}}) {
    const Sequences past = Sequences::of_lengths(before), present = Sequences::of_lengths(after);
    for (const std::int64_t dim : {1, 6}) {
      const Tensor a = random_tensor({past.tokens(), dim}, 1);
      const Tensor b = random_tensor({present.tokens(), dim}, 2);
      const auto join = [&](std::span<const Var> in) {
        return join_rows(in[0], past, in[1], present);
      };
      check_on_cuda(join, {a, b});
      for (const DType dtype : {DType::float64, DType::int64, DType::int32, DType::uint8}) {
        const Tensor x = Tensor::full({past.tokens(), dim}, 3, dtype);
        const Tensor y = Tensor::full({present.tokens(), dim}, 4, dtype);
        CHECK(same_bits(join_tensors(x.to(kCuda), past, y.to(kCuda), present).to(kCpu),
                        join_tensors(x, past, y, present)));
      }
    }
  }
}
