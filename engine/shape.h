// Sizes of a tensor's axes.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace hax {

/// Up to four sizes, row-major. A scalar has rank 0 and one element.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  /// Throws Error on more than four sizes or a negative one.
  Shape(std::initializer_list<std::int64_t> sizes)
      : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes);

  int rank() const { return rank_; }
  /// Size of an axis; negative counts from the end. Throws Error when there is no such axis.
  std::int64_t operator[](int axis) const;
  /// Throws Error when 64 bits cannot count the elements.
  std::int64_t numel() const;
  std::span<const std::int64_t> sizes() const {
    return {sizes_.data(), static_cast<std::size_t>(rank_)};
  }
  bool operator==(const Shape& other) const;

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

/// "[3, 5]"
std::string to_string(const Shape& shape);

}  // namespace hax

/// Shapes print themselves, so that a check whose condition holds formats nothing.
template <>
struct fmt::formatter<hax::Shape> : fmt::formatter<std::string> {
  template <class Context>
  auto format(const hax::Shape& shape, Context& context) const {
    return fmt::formatter<std::string>::format(hax::to_string(shape), context);
  }
};
