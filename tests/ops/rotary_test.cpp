#include "ops/rotary/rotary.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

// The formula for a tensor whose row r stands at positions[r], with angles in long double.
Tensor naive(const Tensor& x, const std::vector<std::int64_t>& positions, std::int64_t heads,
             double theta) {
  Tensor y = Tensor::empty(x.shape(), DType::float64);
  const std::int64_t head_dim = x.size(1) / heads, half = head_dim / 2;
  for (std::int64_t r = 0; r < x.size(0); ++r) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const double* in = x.data<double>() + (r * heads + h) * head_dim;
      double* out = y.data<double>() + (r * heads + h) * head_dim;
      for (std::int64_t k = 0; k < half; ++k) {
        const long double angle =
            static_cast<long double>(positions[r]) *
            std::pow(static_cast<long double>(theta),
                     static_cast<long double>(-2 * k) / static_cast<long double>(head_dim));
        const long double c = std::cos(angle), s = std::sin(angle);
        out[k] = static_cast<double>(in[k] * c - in[k + half] * s);
        out[k + half] = static_cast<double>(in[k + half] * c + in[k] * s);
      }
    }
  }
  return y;
}

std::vector<std::int64_t> positions_of(const Sequences& pack,
                                       const std::vector<std::int64_t>& first) {
  std::vector<std::int64_t> positions;
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    for (std::int64_t i = 0; i < pack.length(s); ++i) positions.push_back(first[s] + i);
  }
  return positions;
}

}  // namespace

TEST_CASE("rotary equals the formula") {
  const Sequences pack = Sequences::of_lengths({5, 0, 1, 200});
  const std::vector<std::int64_t> zeros(4, 0), later{63, 7, 12345, 1};
  for (const std::int64_t heads : {1, 3}) {
    for (const std::int64_t head_dim : {2, 8, 34, 96}) {
      for (const double theta : {10000.0, 2.5}) {
        const Tensor x = random_tensor({206, heads * head_dim}, 1);
        for (const auto& first : {zeros, later}) {
          INFO(heads << " heads of " << head_dim << ", theta " << theta);
          const Tensor expected = naive(x, positions_of(pack, first), heads, theta);
          const Tensor y = rotary(x, pack, heads, theta, first).value();
          CHECK(relative_error(y, expected) < 1e-11);
          const Var y32 = rotary(x.to(DType::float32), pack, heads, theta, first);
          CHECK(relative_error(y32.value(), expected) < 1e-6);
        }
        CHECK(same_bits(rotary(x, pack, heads, theta).value(),
                        rotary(x, pack, heads, theta, zeros).value()));
      }
    }
  }
}

TEST_CASE("rotary of no tokens is empty") {
  CHECK(rotary(Tensor::zeros({0, 8}), Sequences::single(0), 2).shape() == Shape{0, 8});
  CHECK(rotary(Tensor::zeros({0, 8}), Sequences(), 2).shape() == Shape{0, 8});
}

TEST_CASE("rotary is exact at position 2^22") {
  const std::int64_t far = std::int64_t{1} << 22;
  const Sequences pack = Sequences::single(130);
  const Tensor x = random_tensor({130, 16}, 1);
  const Tensor expected = naive(x, positions_of(pack, {far - 65}), 2, 10000.0);
  CHECK(relative_error(rotary(x, pack, 2, 10000.0, {far - 65}).value(), expected) < 2e-9);
  const Var y32 = rotary(x.to(DType::float32), pack, 2, 10000.0, {far - 65});
  CHECK(relative_error(y32.value(), expected) < 1e-6);
}

TEST_CASE("rotary makes dot products depend on the distance alone") {
  const Tensor q = random_tensor({1, 16}, 1), k = random_tensor({1, 16}, 2);
  const auto score = [&](std::int64_t i, std::int64_t j) {
    const Tensor a = rotary(q, Sequences::single(1), 1, 10000.0, {i}).value();
    const Tensor b = rotary(k, Sequences::single(1), 1, 10000.0, {j}).value();
    double dot = 0;
    for (std::int64_t e = 0; e < 16; ++e) dot += a.data<double>()[e] * b.data<double>()[e];
    return dot;
  };
  CHECK(score(17, 5) == doctest::Approx(score(512, 500)).epsilon(1e-10));
  CHECK(score(17, 5) != doctest::Approx(score(512, 501)).epsilon(1e-3));
}

TEST_CASE("rotary of a sequence in parts is that in one piece, to the bit") {
  const Tensor x = random_tensor({150, 12}, 1, DType::float32);
  const Tensor whole = rotary(x, Sequences::single(150), 3).value();
  for (const std::int64_t cut : {0, 1, 64, 100, 150}) {
    const Tensor one = rotary(x.rows(0, cut), Sequences::single(cut), 3).value();
    const Tensor two =
        rotary(x.rows(cut, 150), Sequences::single(150 - cut), 3, 10000.0, {cut}).value();
    CHECK(same_bits(one, whole.rows(0, cut)));
    CHECK(same_bits(two, whole.rows(cut, 150)));
  }
}

TEST_CASE("rotary of some rows is that of all, where they are") {
  const Sequences pack = Sequences::of_lengths({5, 0, 1, 90});
  const Tensor x = random_tensor({96, 12}, 1, DType::float32);
  const std::vector<std::int64_t> first{3, 0, 100, 7};
  const Tensor all = rotary(x, pack, 2, 10000.0, first).value();
  const std::vector<std::int32_t> list{0, 4, 5, 6, 80, 95};
  Tensor some = Tensor::empty({6, 12});
  for (std::int64_t r = 0; r < 6; ++r) {
    Tensor row = some.rows(r, r + 1);
    copy(row, x.rows(list[r], list[r] + 1));
  }
  const Tensor y = rotary(some, pack, 2, 10000.0, first, Tensor::from(list)).value();
  for (std::int64_t r = 0; r < 6; ++r) {
    CHECK(same_bits(y.rows(r, r + 1), all.rows(list[r], list[r] + 1)));
  }
  const Tensor none = Tensor::empty({0}, DType::int32);
  CHECK(rotary(Tensor::empty({0, 12}), pack, 2, 10000.0, first, none).size(0) == 0);
}

TEST_CASE("the gradient of rotary turns back") {
  const Sequences pack = Sequences::of_lengths({5, 80});
  const Var x = Var::leaf(random_tensor({85, 12}, 1));
  const Var y = rotary(x, pack, 2, 10000.0, {0, 9});
  backward(y, y.value().clone());
  CHECK(relative_error(x.grad(), x.value()) < 1e-14);
}

TEST_CASE("rotary refuses what does not fit") {
  const Tensor x = random_tensor({6, 10}, 1);
  const Sequences pack = Sequences::of_lengths({4, 2});
  CHECK(error_of([&] { rotary(x, pack, 2); }) ==
        "rotary: head size 5 is odd, expected an even one: the first half of a head turns against "
        "its second half");
  CHECK(error_of([&] { rotary(x, pack, 3); }) ==
        "rotary: x is [6, 10], expected [R, heads P] with 3 heads and P >= 2");
  CHECK(error_of([&] { rotary(x, pack, 0); }) == "rotary: 0 heads, expected at least one");
  CHECK(error_of([&] { rotary(x, pack, 1, -1.0); }) ==
        "rotary: theta is -1, expected a positive number");
  CHECK(error_of([&] {
          rotary(x, pack, 1, std::numeric_limits<double>::quiet_NaN());
        }).starts_with("rotary: theta is nan"));
  CHECK(error_of([&] {
          rotary(Tensor::zeros({6, 10}, DType::int32), pack, 1);
        }) == "rotary: x is int32, expected float32 or float64");
  CHECK(error_of([&] { rotary(x, Sequences::single(7), 1); }).starts_with("rotary: "));
  CHECK(error_of([&] { rotary(x, pack, 1, 10.0, {1}); }) ==
        "rotary: 1 first positions for 2 sequences, expected one each or none");
  CHECK(error_of([&] {
          rotary(x, pack, 1, 10.0, {1, -1});
        }) == "rotary: first position -1 of sequence 1, expected 0 to 4503599627370496");
  CHECK(error_of([&] {
          rotary(x, pack, 1, 10.0, {}, Tensor::from(std::vector<std::int32_t>{0, 1}));
        }) == "rotary: rows is int32 [2] and x is [6, 10], expected int32 [R] and [R, heads P]");
  CHECK(error_of([&] {
          rotary(x.rows(0, 2), pack, 1, 10.0, {}, Tensor::from(std::vector<std::int32_t>{3, 6}));
        }) ==
        "rotary: rows[1] is 6, expected at least 4 and below 6: strictly increasing positions of "
        "the pack");
}

TEST_CASE("rotary on CUDA equals the CPU, the same to the bit in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  const Sequences pack = Sequences::of_lengths({5, 0, 1, 190, 0});
  const std::vector<std::int64_t> later{3, 0, 1 << 22, 70, 1};
  const Tensor rows = Tensor::from(std::vector<std::int32_t>{0, 4, 5, 6, 80, 195});
  for (const std::int64_t heads : {1, 3}) {
    for (const std::int64_t half : {1, 5, 40}) {
      const std::int64_t channels = heads * 2 * half;
      INFO(heads << " heads of " << 2 * half);
      check_on_cuda([&](std::span<const Var> in) { return rotary(in[0], pack, heads); },
                    {random_tensor({196, channels}, 1)});
      check_on_cuda(
          [&](std::span<const Var> in) { return rotary(in[0], pack, heads, 100.0, later, rows); },
          {random_tensor({6, channels}, 2)});
    }
  }
  check_on_cuda([](std::span<const Var> in) { return rotary(in[0], Sequences::single(0), 1); },
                {random_tensor({0, 4}, 1)});
}
