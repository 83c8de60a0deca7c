// A 16-bit number with float32's exponent: storage only. Arithmetic is done in float.
#pragma once

#include <bit>
#include <cstdint>

namespace hax {

/// The upper half of a float32. Converts to and from float explicitly; constexpr, so that device
/// code can use it.
struct Bfloat16 {
  std::uint16_t bits = 0;

  Bfloat16() = default;
  /// To the nearest, ties to even. NaN stays NaN.
  explicit constexpr Bfloat16(float value) {
    const std::uint32_t all = std::bit_cast<std::uint32_t>(value);
    if ((all & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>(all >> 16 | 0x40u);
    } else {
      bits = static_cast<std::uint16_t>((all + 0x7fffu + (all >> 16 & 1u)) >> 16);
    }
  }
  explicit constexpr operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

}  // namespace hax
