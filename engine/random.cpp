#include "engine/random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "engine/dispatch.h"

namespace hax {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = kMultiplier0 * counter[0];
    const std::uint64_t b = kMultiplier1 * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

namespace {

// Natural logarithm of a positive normal float: exponent by bits, mantissa in [0.75, 1.5) by the
// series of 2 atanh(s), s = (m-1)/(m+1). Every product that meets a sum is an explicit fma, so no
// compiler rounds differently.
float portable_log(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t shifted = bits - 0x3f400000u;  // 0.75f
  const auto exponent = static_cast<std::int32_t>(shifted) >> 23;
  const float m = std::bit_cast<float>((shifted & 0x007fffffu) + 0x3f400000u);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float p = 1.0f / 11.0f;
  p = std::fma(p, z, 1.0f / 9.0f);
  p = std::fma(p, z, 1.0f / 7.0f);
  p = std::fma(p, z, 0.2f);
  p = std::fma(p, z, 1.0f / 3.0f);
  const float tail = p * z;
  const float log_m = std::fma(2.0f * s, tail, 2.0f * s);
  return std::fma(static_cast<float>(exponent), 0.693147181f, log_m);
}

}  // namespace

// The inverse error function of M. Giles, "Approximating the erfinv function", GPU Computing Gems 2
// (2011), single precision: a polynomial in w = -log(1 - x^2) near the centre, in sqrt(w) in the
// tails. His tail ends at 1 - |x| = 2^-24; beyond it, at 250 of the 2^32 inputs, our own Chebyshev
// fit of erfinv(x) / x over sqrt(w) in [4, 4.65] takes over.
float normal_from_bits(std::uint32_t bits) {
  // x = (2 bits + 1) / 2^32 - 1 lies in (-1, 1) and is symmetric; 1 - |x| is exact before rounding
  // to float.
  const bool negative = bits < 0x80000000u;
  const std::uint32_t distance = negative ? bits : ~bits;  // from the nearer end, in [0, 2^31)
  // 1 - |x| = (2 distance + 1) / 2^32
  const float gap = (static_cast<float>(distance) + 0.5f) * 0x1p-31f;
  const float x = 1.0f - gap;
  const float w = -portable_log(gap * (1.0f + x));
  float p;
  if (w < 5.0f) {
    const float v = w - 2.5f;
    p = 2.81022636e-08f;
    p = std::fma(p, v, 3.43273939e-07f);
    p = std::fma(p, v, -3.5233877e-06f);
    p = std::fma(p, v, -4.39150654e-06f);
    p = std::fma(p, v, 0.00021858087f);
    p = std::fma(p, v, -0.00125372503f);
    p = std::fma(p, v, -0.00417768164f);
    p = std::fma(p, v, 0.246640727f);
    p = std::fma(p, v, 1.50140941f);
  } else if (w < 16.0f) {
    const float v = std::sqrt(w) - 3.0f;
    p = -0.000200214257f;
    p = std::fma(p, v, 0.000100950558f);
    p = std::fma(p, v, 0.00134934322f);
    p = std::fma(p, v, -0.00367342844f);
    p = std::fma(p, v, 0.00573950773f);
    p = std::fma(p, v, -0.0076224613f);
    p = std::fma(p, v, 0.00943887047f);
    p = std::fma(p, v, 1.00167406f);
    p = std::fma(p, v, 2.83297682f);
  } else {
    const float v = std::sqrt(w) - 4.3f;
    p = 0.0001920945f;
    p = std::fma(p, v, -0.000574346052f);
    p = std::fma(p, v, 0.000625165881f);
    p = std::fma(p, v, 1.01004528f);
    p = std::fma(p, v, 4.14272404f);
  }
  const float value = 1.41421356f * (p * x);
  return negative ? -value : value;
}

std::uint32_t RandomStream::next() {
  if (used_ == 4) {
    const std::uint32_t purpose =
        static_cast<std::uint32_t>(key_.layer) << 16 | static_cast<std::uint32_t>(key_.purpose);
    block_ = philox4x32(
        {index_++, key_.step, key_.sequence, purpose},
        {static_cast<std::uint32_t>(key_.seed), static_cast<std::uint32_t>(key_.seed >> 32)});
    used_ = 0;
  }
  return block_[static_cast<std::size_t>(used_++)];
}

// D. Lemire, "Fast random integer generation in an interval" (2019).
std::uint32_t RandomStream::below(std::uint32_t bound) {
  std::uint64_t product = static_cast<std::uint64_t>(next()) * bound;
  if (static_cast<std::uint32_t>(product) < bound) {
    const std::uint32_t threshold = -bound % bound;
    while (static_cast<std::uint32_t>(product) < threshold) {
      product = static_cast<std::uint64_t>(next()) * bound;
    }
  }
  return static_cast<std::uint32_t>(product >> 32);
}

float RandomStream::uniform() { return static_cast<float>(next() >> 8) * 0x1p-24f; }

void fill_normal(Tensor& tensor, RandomKey key, double deviation) {
  visit_float(tensor.dtype(), [&]<class T>() {
    RandomStream stream(key);
    T* data = tensor.data<T>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      data[i] = static_cast<T>(stream.normal() * static_cast<float>(deviation));
    }
  });
}

void fill_uniform(Tensor& tensor, RandomKey key, double low, double high) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  // low + u (high - low) may round up to high, and low or high themselves need not be float32.
  auto first = static_cast<float>(low), last = static_cast<float>(high);
  if (first < low) first = std::nextafter(first, kInfinity);
  if (last >= high) last = std::nextafter(last, -kInfinity);
  const auto start = static_cast<float>(low), width = static_cast<float>(high - low);
  check(first <= last && width < kInfinity, "fill_uniform: no float32 numbers in [{}, {})", low,
        high);
  visit_float(tensor.dtype(), [&]<class T>() {
    RandomStream stream(key);
    T* data = tensor.data<T>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      data[i] = static_cast<T>(std::clamp(std::fma(stream.uniform(), width, start), first, last));
    }
  });
}

}  // namespace hax
