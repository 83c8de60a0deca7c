#include "engine/shape.h"

#include <algorithm>
#include <limits>

#include "engine/check.h"

namespace hax {

Shape::Shape(std::span<const std::int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  check(sizes.size() <= kMaxRank, "a shape has at most {} axes, got {}", kMaxRank, sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    check(sizes[i] >= 0, "axis {} of a shape has the negative size {}", i, sizes[i]);
    sizes_[i] = sizes[i];
  }
}

std::int64_t Shape::operator[](int axis) const {
  const int at = axis < 0 ? axis + rank_ : axis;
  check(at >= 0 && at < rank_, "axis {} of shape {} does not exist", axis, *this);
  return sizes_[static_cast<std::size_t>(at)];
}

std::int64_t Shape::numel() const {
  if (std::ranges::find(sizes(), 0) != sizes().end()) return 0;
  std::int64_t product = 1;
  for (const std::int64_t size : sizes()) {
    check(product <= std::numeric_limits<std::int64_t>::max() / size,
          "shape {} has more elements than 64 bits can count", *this);
    product *= size;
  }
  return product;
}

bool Shape::operator==(const Shape& other) const {
  return std::ranges::equal(sizes(), other.sizes());
}

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape.sizes(), ", "));
}

}  // namespace hax
