#include "data/target_facts.h"

#include <doctest/doctest.h>

using namespace hax;

namespace {

std::vector<TargetFacts> facts_of(const JointRecallTask& task,
                                  const std::vector<std::vector<std::int32_t>>& samples) {
  return target_facts(task, pack(task, samples));
}

}  // namespace

TEST_CASE("target facts: table sizes and distances, counted by hand") {
  // Values 10..13, keys 14..16, contexts 17..19.
  const JointRecallTask task{.contexts = {1, 3}, .keys = {1, 3}, .values = 4};
  // bos A a 0 b 1 B b 2 a 3 sep B a 3 b 2 A a 0 b 1
  const std::vector<std::int32_t> sample{1, 17, 14, 10, 15, 11, 18, 15, 12, 14, 13,
                                         4, 18, 14, 13, 15, 12, 17, 14, 10, 15, 11};
  // bos C c 1 sep C c 1
  const std::vector<std::int32_t> small{1, 19, 16, 11, 4, 19, 16, 11};
  const std::vector<TargetFacts> facts = facts_of(task, {sample, small});
  REQUIRE(facts.size() == 5);
  const std::vector<std::int64_t> distances{4, 8, 16, 16, 4};
  for (std::size_t i = 0; i < facts.size(); ++i) {
    CHECK(facts[i].distance == distances[i]);
    CHECK(facts[i].contexts == (i < 4 ? 2 : 1));
    CHECK(facts[i].keys == (i < 4 ? 2 : 1));
  }
}

TEST_CASE("target facts: one level has one context") {
  const JointRecallTask task{.levels = 1, .contexts = {1, 1}, .keys = {1, 3}, .values = 4};
  // bos a 0 b 1 sep b 1 a 0
  const std::vector<TargetFacts> facts = facts_of(task, {{1, 14, 10, 15, 11, 4, 15, 11, 14, 10}});
  REQUIRE(facts.size() == 2);
  CHECK(facts[0].contexts == 1);
  CHECK(facts[0].keys == 2);
  CHECK(facts[0].distance == 3);
  CHECK(facts[1].distance == 7);
}
