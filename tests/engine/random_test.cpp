#include "engine/random.h"

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr RandomKey kKey{
    .seed = 0x0123456789abcdef, .step = 7, .sequence = 11, .layer = 3, .purpose = Purpose::hash};

// The standard normal quantile of p <= 1/2, by bisection and Newton's method on std::erfc.
double quantile(double p) {
  double low = -8, high = 0;
  for (int i = 0; i < 20; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  double z = (low + high) / 2;
  for (int i = 0; i < 4; ++i) {
    const double density = std::exp(-z * z / 2) / std::sqrt(2 * 3.14159265358979323846);
    z -= (std::erfc(-z / std::sqrt(2.0)) / 2 - p) / density;
  }
  return z;
}

double quantile_of_bits(std::uint32_t bits) {
  const std::uint32_t distance = bits < 0x80000000u ? bits : ~bits;
  const double z = quantile((2.0 * distance + 1) / 0x1p33);
  return bits < 0x80000000u ? z : -z;
}

}  // namespace

TEST_CASE("philox4x32 gives the published vectors of Random123") {
  using Block = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream reads the blocks of its key in order") {
  RandomStream stream(kKey);
  for (std::uint32_t block = 0; block < 5; ++block) {
    const auto expected = philox4x32({block, 7, 11, 3u << 16 | 2u}, {0x89abcdef, 0x01234567});
    for (const std::uint32_t word : expected) CHECK(stream.next() == word);
  }
}

TEST_CASE("every part of a key gives another stream") {
  std::vector<RandomKey> keys(7, kKey);
  keys[1].seed ^= 1;
  keys[2].seed ^= std::uint64_t{1} << 63;
  keys[3].step ^= 1;
  keys[4].sequence ^= 1;
  keys[5].layer ^= 1;
  keys[6].purpose = Purpose::candidates;
  std::set<std::uint32_t> firsts;
  for (const RandomKey& key : keys) firsts.insert(RandomStream(key).next());
  CHECK(firsts.size() == keys.size());
}

TEST_CASE("the numbers of a key never change") {
  RandomStream words(kKey), normals(kKey), uniforms(kKey), bounded(kKey);
  for (const std::uint32_t expected :
       {0xd00556fcu, 0x14ea2de1u, 0xec5fd81au, 0xe36c449eu, 0x0e0f14d9u, 0xf4af89c1u}) {
    CHECK(words.next() == expected);
  }
  for (const std::uint32_t expected :
       {0x3f632fe0u, 0xbfb26607u, 0x3fb6c4eeu, 0x3f9be474u, 0xbfcca9dfu, 0x3fda1a93u}) {
    CHECK(std::bit_cast<std::uint32_t>(normals.normal()) == expected);
  }
  for (const std::uint32_t expected : {0x3f500556u, 0x3da75168u, 0x3f6c5fd8u, 0x3f636c44u}) {
    CHECK(std::bit_cast<std::uint32_t>(uniforms.uniform()) == expected);
  }
  for (const std::uint32_t expected : {812u, 81u, 923u, 888u, 54u, 955u, 911u, 297u}) {
    CHECK(bounded.below(1000) == expected);
  }
}

TEST_CASE("normal_from_bits never changes, in any of its ranges") {
  // Far tail, tail and centre.
  const std::pair<std::uint32_t, std::uint32_t> pinned[] = {
      {0x00000000u, 0xc0cad08cu}, {0x00000001u, 0xc0c55363u}, {0x0000007fu, 0xc0ad763bu},
      {0x00000080u, 0xc0ad6ac9u}, {0x000003e8u, 0xc0a14675u}, {0x000f4240u, 0xc05ffc34u},
      {0x00100000u, 0xc05f2cb5u}, {0x01000000u, 0xc02a3e8cu}, {0x10000000u, 0xbfc45e11u},
      {0x40000000u, 0xbf2cab5cu}, {0xc0000000u, 0x3f2cab5cu}, {0xffffffffu, 0x40cad08cu}};
  for (const auto& [bits, value] : pinned) {
    INFO(bits);
    CHECK(std::bit_cast<std::uint32_t>(normal_from_bits(bits)) == value);
  }
}

TEST_CASE("normal_from_bits is the normal quantile") {
  double worst = 0;
  const auto compare = [&](std::uint32_t bits) {
    const double expected = quantile_of_bits(bits);
    const double error = std::abs(normal_from_bits(bits) - expected);
    worst = std::max(worst, error / std::max(1.0, std::abs(expected)));
  };
  for (std::uint32_t bits = 0; bits < 2000; ++bits) compare(bits);
  // Every scale of the tail, then evenly over the whole range.
  for (std::uint64_t bits = 2000; bits < 0x80000000u; bits += 1 + bits / 500) {
    compare(static_cast<std::uint32_t>(bits));
  }
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += 0xfffff) {
    compare(static_cast<std::uint32_t>(bits));
  }
  CHECK(worst < 4e-7);
  CHECK(std::abs(normal_from_bits(0)) <= 6.34f);
}

TEST_CASE("normal_from_bits is symmetric to the bit") {
  int different = 0;
  for (std::uint64_t bits = 0; bits < 0x80000000u; bits += 65521) {
    const auto b = static_cast<std::uint32_t>(bits);
    different += normal_from_bits(b) != -normal_from_bits(~b);
  }
  CHECK(different == 0);
}

TEST_CASE("normal_from_bits rises with its bits") {
  // Coarsely, it rises strictly; between neighbours it may fall by its rounding, never by more.
  int falls = 0;
  float before = normal_from_bits(0);
  for (std::uint64_t bits = 4096; bits <= 0xffffffffu; bits += 4096) {
    const float value = normal_from_bits(static_cast<std::uint32_t>(bits));
    falls += value <= before;
    before = value;
  }
  CHECK(falls == 0);
  // The neighbourhoods of the ends, the centre and the seams between polynomials (w = 5 and 16).
  for (const std::uint32_t centre : {60000u, 241u, 7248000u, 0x40000000u, 0x7fff8000u}) {
    float last = -10;
    for (std::uint32_t bits = centre - std::min(centre, 60000u); bits < centre + 60000; ++bits) {
      const float value = normal_from_bits(bits);
      falls += value < last - 2.5e-7f * std::abs(last);
      last = value;
    }
  }
  CHECK(falls == 0);
}

TEST_CASE("a million normal draws have the moments and the tails of a normal") {
  constexpr int kCount = 1'000'000;
  RandomStream stream({.seed = 1});
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  std::array<int, 8> bins{};  // by |z|: below 0.5, 1, ...
  for (int i = 0; i < kCount; ++i) {
    const double z = stream.normal();
    m1 += z / kCount;
    m2 += z * z / kCount;
    m3 += z * z * z / kCount;
    m4 += z * z * z * z / kCount;
    ++bins[std::min<std::size_t>(7, static_cast<std::size_t>(std::abs(z) * 2))];
  }
  // Four standard deviations of each estimate.
  CHECK(std::abs(m1) < 4 * std::sqrt(1.0 / kCount));
  CHECK(std::abs(m2 - 1) < 4 * std::sqrt(2.0 / kCount));
  CHECK(std::abs(m3) < 4 * std::sqrt(15.0 / kCount));
  CHECK(std::abs(m4 - 3) < 4 * std::sqrt(96.0 / kCount));
  for (std::size_t bin = 0; bin < bins.size(); ++bin) {
    const double low = 0.5 * static_cast<double>(bin);
    const double share =
        std::erfc(low / std::sqrt(2.0)) - (bin == 7 ? 0 : std::erfc((low + 0.5) / std::sqrt(2.0)));
    INFO("bin " << bin);
    CHECK(std::abs(bins[bin] - share * kCount) < 4 * std::sqrt(share * kCount));
  }
}

TEST_CASE("below is bounded and without bias") {
  RandomStream stream({.seed = 2});
  CHECK(stream.below(1) == 0);
  constexpr int kCount = 300'000;
  for (const std::uint32_t bound : {2u, 7u, 100u}) {
    std::vector<int> counts(bound, 0);
    for (int i = 0; i < kCount; ++i) {
      const std::uint32_t number = stream.below(bound);
      if (number < bound) ++counts[number];
    }
    CHECK(std::accumulate(counts.begin(), counts.end(), 0) == kCount);
    const double expected = static_cast<double>(kCount) / bound;
    double chi_square = 0;
    for (const int count : counts) chi_square += (count - expected) * (count - expected) / expected;
    const double freedom = bound - 1;
    CHECK(chi_square < freedom + 4 * std::sqrt(2 * freedom) + 4);
  }
  // Scaling 2^32 words to 3 * 2^30 numbers without rejection would hit every third one twice.
  std::array<int, 3> residues{};
  std::uint32_t largest = 0;
  for (int i = 0; i < kCount; ++i) {
    const std::uint32_t number = stream.below(3u << 30);
    largest = std::max(largest, number);
    ++residues[number % 3];
  }
  CHECK(largest < 3u << 30);
  CHECK(largest > (3u << 30) - (3u << 30) / 1000);
  for (const int count : residues) {
    CHECK(std::abs(count - kCount / 3.0) < 4 * std::sqrt(kCount / 3.0));
  }
}

TEST_CASE(
    "uniform draws lie from 0 to below 1 on a grid of 2^-24, with mean 1/2 and variance 1/12") {
  constexpr int kCount = 1'000'000;
  RandomStream stream({.seed = 3});
  double mean = 0, square = 0;
  int outside = 0;
  for (int i = 0; i < kCount; ++i) {
    const float u = stream.uniform();
    outside += !(u >= 0 && u < 1) || u * 0x1p24f != std::floor(u * 0x1p24f);
    mean += u / static_cast<double>(kCount);
    square += (u - 0.5) * (u - 0.5) / kCount;
  }
  CHECK(outside == 0);
  CHECK(std::abs(mean - 0.5) < 4 * std::sqrt(1.0 / 12 / kCount));
  CHECK(std::abs(square - 1.0 / 12) < 4 * std::sqrt(1.0 / 180 / kCount));
}

TEST_CASE("fill_normal and fill_uniform give both types the same draws") {
  for (const Shape& shape : {Shape{0}, Shape{1}, Shape{7, 13}}) {
    Tensor single = Tensor::empty(shape), twice = Tensor::empty(shape, DType::float64);
    fill_normal(single, kKey, 0.1);
    fill_normal(twice, kKey, 0.1);
    CHECK(same_bits(single.to(DType::float64), twice));
    fill_uniform(single, kKey, -0.5, 0.25);
    fill_uniform(twice, kKey, -0.5, 0.25);
    CHECK(same_bits(single.to(DType::float64), twice));
  }
  Tensor filled = Tensor::empty({6});
  fill_normal(filled, kKey, 2.0);
  RandomStream stream(kKey);
  for (const float value : filled.values<float>()) CHECK(value == 2 * stream.normal());
}

TEST_CASE("fill_uniform never reaches its upper bound, even where float32 is coarse") {
  const std::pair<double, double> ranges[] = {
      {1, 1 + 0x1p-22},   // two numbers; the upper half would round up to high
      {1000, 1000.0001},  // high is no float32 and rounds up
      {0.7, 0.7000001},   // low is no float32 and rounds down
      {-0.35, 0.35},
      {2, 3}};
  for (const auto& [low, high] : ranges) {
    INFO(low << " to " << high);
    Tensor tensor = Tensor::empty({10'000}, DType::float64);
    fill_uniform(tensor, {.seed = 4}, low, high);
    int outside = 0;
    for (const double value : tensor.values<double>()) outside += !(value >= low && value < high);
    CHECK(outside == 0);
  }
  Tensor tensor = Tensor::empty({1});
  CHECK(error_of([&] { fill_uniform(tensor, kKey, 1, 1); }) ==
        "fill_uniform: no float32 numbers in [1, 1)");
  CHECK(error_of([&] { fill_uniform(tensor, kKey, 2, 1); }) ==
        "fill_uniform: no float32 numbers in [2, 1)");
  CHECK(error_of([&] { fill_uniform(tensor, kKey, 0, HUGE_VAL); }) ==
        "fill_uniform: no float32 numbers in [0, inf)");
  Tensor integers = Tensor::empty({1}, DType::int32);
  CHECK(error_of([&] { fill_normal(integers, kKey); }) == "expected float32 or float64, got int32");
}
