// Element types.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace hax {

enum class DType : std::uint8_t { float32, float64, int32, int64, uint8 };

/// Bytes of one element.
std::int64_t size_of(DType dtype);
/// "float32", "int64", ...
std::string_view name_of(DType dtype);
inline bool is_floating(DType dtype) { return dtype == DType::float32 || dtype == DType::float64; }

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
  } else {
    static_assert(std::is_same_v<T, std::uint8_t>, "no DType for this C++ type");
    return DType::uint8;
  }
}();

}  // namespace hax
