// Element types.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "engine/bfloat16.h"

namespace hax {

enum class DType : std::uint8_t { float32, float64, int32, int64, uint8, bfloat16 };

/// Bytes of one element.
std::int64_t size_of(DType dtype);
/// "float32", "int64", ...
std::string_view name_of(DType dtype);
inline bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16;
}

/// What sums and statistics of numbers of a type are kept in: float32 for bfloat16, else the type.
inline DType sum_type(DType dtype) { return dtype == DType::bfloat16 ? DType::float32 : dtype; }

/// The DType of a C++ type: dtype_of<float>.
template <class T>
inline constexpr DType dtype_of = [] {
  if constexpr (std::is_same_v<T, float>) {
    return DType::float32;
  } else if constexpr (std::is_same_v<T, double>) {
    return DType::float64;
  } else if constexpr (std::is_same_v<T, std::int32_t>) {
    return DType::int32;
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    return DType::int64;
  } else if constexpr (std::is_same_v<T, Bfloat16>) {
    return DType::bfloat16;
  } else {
    static_assert(std::is_same_v<T, std::uint8_t>, "no DType for this C++ type");
    return DType::uint8;
  }
}();

}  // namespace hax
