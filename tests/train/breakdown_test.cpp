#include "train/breakdown.h"

#include <doctest/doctest.h>

using namespace hax;

TEST_CASE("distance classes are halves of octaves without gaps") {
  std::int64_t next = 1;
  for (std::int64_t distance = 1; distance <= 5000; ++distance) {
    const auto [from, below] = distance_class(distance);
    CHECK(from <= distance);
    CHECK(distance < below);
    if (distance == next) {
      CHECK(from == distance);
      next = below;
    }
  }
  CHECK(distance_class(1) == std::pair<std::int64_t, std::int64_t>{1, 2});
  CHECK(distance_class(1000) == std::pair<std::int64_t, std::int64_t>{768, 1024});
}
