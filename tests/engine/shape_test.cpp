#include "engine/shape.h"

#include <doctest/doctest.h>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("a shape knows its rank, sizes and number of elements") {
  const Shape shape{3, 5, 7};
  CHECK(shape.rank() == 3);
  CHECK(shape[0] == 3);
  CHECK(shape[2] == 7);
  CHECK(shape[-1] == 7);
  CHECK(shape[-3] == 3);
  CHECK(shape.numel() == 105);
  CHECK(to_string(shape) == "[3, 5, 7]");
}

TEST_CASE("a scalar shape has rank 0 and one element") {
  CHECK(Shape{}.rank() == 0);
  CHECK(Shape{}.numel() == 1);
  CHECK(to_string(Shape{}) == "[]");
}

TEST_CASE("shapes are equal when rank and sizes are") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK(Shape{2} != Shape{2, 1});
  CHECK(Shape{} != Shape{1});
  CHECK(Shape{} == Shape{});
}

TEST_CASE("an axis of size 0 makes a shape empty, however large the others are") {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  CHECK(Shape{0}.numel() == 0);
  CHECK(Shape{4, 0, 3}.numel() == 0);
  CHECK(Shape{kHuge, kHuge, 0}.numel() == 0);
  CHECK(Shape{0, kHuge, kHuge}.numel() == 0);
}

TEST_CASE("a shape refuses negative sizes, too many axes and axes that do not exist") {
  CHECK(error_of([] { Shape{2, -1}; }) == "axis 1 of a shape has the negative size -1");
  CHECK(error_of([] { Shape{1, 2, 3, 4, 5}; }) == "a shape has at most 4 axes, got 5");
  CHECK(error_of([] { (void)Shape{2, 3}[2]; }) == "axis 2 of shape [2, 3] does not exist");
  CHECK(error_of([] { (void)Shape{2, 3}[-3]; }) == "axis -3 of shape [2, 3] does not exist");
  CHECK(error_of([] { (void)Shape{}[0]; }) == "axis 0 of shape [] does not exist");
}

TEST_CASE("numel counts up to 2^63 - 1 and refuses more") {
  constexpr std::int64_t kHalf = std::int64_t{1} << 31;
  CHECK(Shape{kHalf, kHalf}.numel() == std::int64_t{1} << 62);
  CHECK(Shape{INT64_MAX}.numel() == INT64_MAX);
  CHECK(error_of([] {
          (void)Shape{kHalf, kHalf, 2}.numel();
        }) == "shape [2147483648, 2147483648, 2] has more elements than 64 bits can count");
}
