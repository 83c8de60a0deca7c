// Exponentials that GCC turns into vector instructions: no branch, no table, no call. Inside a
// `#pragma omp simd` loop over float they cost about a dozen instructions a vector; for double they
// are the standard library's functions, exact enough for gradient checks.
//
// All are constexpr templates of plain arithmetic, so that device code can use them too. Each
// states its largest relative error in float, measured by tests/ops/vector_math_test.cpp over a
// dense set of arguments. Denormal results may be flushed to zero; NaN gives NaN. The coefficients
// are minimax fits of the relative error (Remez exchange), computed for this file.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace hax {
namespace detail {

// Bits of a if `take_a`, else of b. GCC makes a branch of `?:` when an arm is a computation that
// might raise a floating-point exception, and then gives up on the loop.
constexpr float select(bool take_a, float a, float b) {
  const std::uint32_t mask = -static_cast<std::uint32_t>(take_a);
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(a) & mask) |
                              (std::bit_cast<std::uint32_t>(b) & ~mask));
}

}  // namespace detail

/// e^x. Relative error <= 1.5e-7 for x in [-87.3, 88.7]; 0 below, +inf above.
template <class T>
constexpr T fast_exp(T x) {
  if constexpr (std::is_same_v<T, float>) {
    // x = n ln 2 + f with |f| <= ln(2) / 2. Adding 1.5 2^23 leaves the nearest integer n in the low
    // bits of the sum.
    const float shifted = x * 1.44269504F + 12582912.0F;
    const float n = shifted - 12582912.0F;
    // ln 2 in two parts: the first has few bits, so n times it is exact.
    const float f = (x - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.406124039e-3F;
    p = p * f + 8.379011162e-3F;
    p = p * f + 4.166477730e-2F;
    p = p * f + 1.666636544e-1F;
    p = p * f + 5.000000434e-1F;
    p = p * f + 1.0F;
    p = p * f + 1.0F;
    // p 2^n: n goes straight into the exponent field, which holds for n = 128 too, where p < 1.
    const float y = std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) +
                                         (std::bit_cast<std::uint32_t>(shifted) << 23));
    const float flushed = detail::select(x < -87.336F, 0.0F, y);
    // The comparison is false for NaN as well, which the sum keeps.
    return detail::select(x <= 88.72283F, flushed, x + std::numeric_limits<float>::infinity());
  } else {
    return std::exp(x);
  }
}

/// 2^x for x <= 127: what a loop uses that can fold log2(e) into a constant, a quarter cheaper than
/// fast_exp. Relative error <= 1.5e-7 for x in [-126, 127], 0 below -126.5, unspecified above 127.
template <class T>
constexpr T fast_exp2(T x) {
  if constexpr (std::is_same_v<T, float>) {
    // As in fast_exp, with the exponent's bias in the sum: its low bits are the exponent field of
    // 2^n. The product keeps NaN.
    const float shifted = x + (12582912.0F + 127.0F);
    const float f = x - (shifted - (12582912.0F + 127.0F));
    float p = 1.559467754e-4F;
    p = p * f + 1.340664390e-3F;
    p = p * f + 9.617692975e-3F;
    p = p * f + 5.550310551e-2F;
    p = p * f + 2.402265278e-1F;
    p = p * f + 6.931472150e-1F;
    p = p * f + 1.0F;
    const float y = p * std::bit_cast<float>(std::bit_cast<std::uint32_t>(shifted) << 23);
    // n < -126. Asking x instead would cost an instruction where x is a product, which GCC
    // otherwise fuses into both sums.
    return detail::select(shifted <= 12582912.0F, 0.0F, y);
  } else {
    return std::exp2(x);
  }
}

/// 1 / (1 + e^-x). Relative error <= 3e-7 for x >= -87.
template <class T>
constexpr T fast_sigmoid(T x) {
  return 1 / (1 + fast_exp(-x));
}

/// log(1 + e^-|x|): the smooth part of softplus, log-sigmoid and the binary cross-entropy. Relative
/// error <= 4e-7 for |x| <= 87.
template <class T>
constexpr T fast_log1p_exp_neg_abs(T x) {
  const T z = fast_exp(-std::abs(x));
  if constexpr (std::is_same_v<T, float>) {
    // log(1 + z) = 2 artanh(s) with s = z / (2 + z) <= 1/3: exact to first order for tiny z.
    const float s = z / (2 + z), w = s * s;
    float p = 1.400599336e-1F;
    p = p * w + 1.400090265e-1F;
    p = p * w + 2.001076362e-1F;
    p = p * w + 3.333320814e-1F;
    return 2 * (s + s * w * p);
  } else {
    return std::log1p(z);
  }
}

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|). Relative error <= 4e-7 for x >= -87.
template <class T>
constexpr T fast_softplus(T x) {
  return (x > 0 ? x : 0) + fast_log1p_exp_neg_abs(x);
}

}  // namespace hax
