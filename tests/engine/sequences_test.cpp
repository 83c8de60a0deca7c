#include "engine/sequences.h"

#include <doctest/doctest.h>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("sequences know where they begin and end") {
  const Sequences pack({0, 3, 3, 7});
  CHECK(pack.count() == 3);
  CHECK(pack.tokens() == 7);
  CHECK(pack.begin(0) == 0);
  CHECK(pack.end(0) == 3);
  CHECK(pack.length(1) == 0);
  CHECK(pack.begin(2) == 3);
  CHECK(pack.length(2) == 4);
  CHECK(pack.padded(2) == 4);
}

TEST_CASE("a pack of nothing, one sequence, and a pack given by lengths") {
  CHECK(Sequences().count() == 0);
  CHECK(Sequences().tokens() == 0);
  CHECK(Sequences::single(5).count() == 1);
  CHECK(Sequences::single(5).length(0) == 5);
  CHECK(Sequences::single(0).tokens() == 0);
  const Sequences pack = Sequences::of_lengths({2, 0, 5}, {4, 0, 5});
  CHECK(pack.tokens() == 7);
  CHECK(pack.begin(2) == 2);
  CHECK(pack.padded(0) == 4);
  CHECK(Sequences::of_lengths({}).count() == 0);
}

TEST_CASE("a slice is a pack of its own") {
  const Sequences pack = Sequences::of_lengths({2, 3, 0, 4}, {9, 8, 7, 6});
  const Sequences middle = pack.slice(1, 3);
  CHECK(middle.count() == 2);
  CHECK(middle.tokens() == 3);
  CHECK(middle.begin(0) == 0);
  CHECK(middle.padded(0) == 8);
  CHECK(middle.padded(1) == 7);
  CHECK(pack.slice(4, 4).count() == 0);
  CHECK(pack.slice(0, 4).tokens() == 9);
  CHECK(error_of([&] { (void)pack.slice(3, 5); }) == "sequences 3..5 of a pack of 4 do not exist");
  CHECK(error_of([&] { (void)pack.slice(2, 1); }) == "sequences 2..1 of a pack of 4 do not exist");
  CHECK(error_of([&] { (void)pack.slice(-1, 1); }) ==
        "sequences -1..1 of a pack of 4 do not exist");
}

TEST_CASE("offsets, lengths and padded lengths that make no sense are refused") {
  CHECK(error_of([] { Sequences(std::vector<std::int64_t>{}); }) ==
        "sequence offsets must start with 0");
  CHECK(error_of([] { Sequences({1, 2}); }) == "sequence offsets must start with 0");
  CHECK(error_of([] {
          Sequences({0, 4, 3});
        }) == "sequence offsets must not decrease: 3 follows 4");
  CHECK(error_of([] {
          Sequences({0, 4}, {3});
        }) == "sequence 0 has 4 tokens but a padded length of 3");
  CHECK(error_of([] { Sequences({0, 4}, {4, 4}); }) == "2 padded lengths for 1 sequences");
  CHECK(error_of([] {
          Sequences::of_lengths({3, -1});
        }) == "sequence 1 has -1 tokens, expected 0 to 2147483647");
  CHECK(error_of([] {
          Sequences::of_lengths({INT64_MAX, 1});
        }) == "sequence 0 has 9223372036854775807 tokens, expected 0 to 2147483647");
  CHECK(error_of([] {
          Sequences::of_lengths({INT32_MAX, 1});
        }) == "a pack of 2147483648 tokens: positions are 32-bit, at most 2147483647 fit");
  CHECK(Sequences::single(INT32_MAX).tokens() == INT32_MAX);
}

TEST_CASE("an op can demand that its rows fit the pack") {
  const Sequences pack = Sequences::of_lengths({2, 3});
  CHECK(error_of([&] { pack.require_tokens("scan", 5); }) == "");
  CHECK(error_of([&] { pack.require_tokens("scan", 4); }) == "scan: 4 rows for a pack of 5 tokens");
}
