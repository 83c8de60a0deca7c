// What each target of a batch asks for: the size of its table and how far back its answer lies.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"

namespace hax {

struct TargetFacts {
  std::int64_t contexts = 0;  ///< innermost contexts of the sample's table; 1 at one level
  std::int64_t keys = 0;      ///< keys under each of them
  std::int64_t distance = 0;  ///< tokens from the key in the table to the same key in the question
};

/// One for each target row of a batch of `task`, in their order. Throws Error when a target asks
/// for what its sample's table does not hold.
std::vector<TargetFacts> target_facts(const JointRecallTask& task, const Batch& batch);

}  // namespace hax
