// Shares between 0 and 1 as text that is short enough for a page. pictures.js reads it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace hax::inspect {

inline constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `digits` digits of base 64, the first the most significant.
inline void pack_number(std::int64_t value, int digits, std::string& text) {
  for (int shift = 6 * (digits - 1); shift >= 0; shift -= 6) text += kDigits[value >> shift & 63];
}

/// A share on a logarithmic scale: code 0 up to `least`, then equal ratios up to 1. With `digits`
/// digits neighbours differ by a factor of exp(-ln(least) / (64^digits - 2)).
inline void pack_share(double share, double least, int digits, std::string& text) {
  const double steps = std::pow(64.0, digits) - 2;
  const double place = share > least ? 1 - std::log(share) / std::log(least) : -1;
  pack_number(place < 0 ? 0 : 1 + std::lround(std::min(1.0, place) * steps), digits, text);
}

/// Kept shares: two digits, to 0.08 %. Weights: three digits, to 0.003 %. Keys: two digits, below
/// 4096.
inline constexpr int kKeptDigits = 2, kWeightDigits = 3, kKeyDigits = 2;
inline constexpr double kLeastWeight = 1e-6;

}  // namespace hax::inspect
