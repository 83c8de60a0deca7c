// Drawing joint recall samples. A sample is a pure function of (task, seed, split, slot): nothing
// depends on what was drawn before, so streams resume anywhere and blocks are drawn in parallel.
//
// Slot i has table sizes i mod size_count() and one endless random stream (engine/random.h:
// Purpose::sample, step and sequence = high and low word of i). Samples are drawn from it one after
// the other; a split's sample is the first whose hash belongs to the split.
//
// One sample takes its numbers in this order: the table, row-major; then, for each half, from the
// outside in, the order of each block's entries just before the block is written. Bounded integers
// come in batches, each from one 64-bit word (two 32-bit numbers, low half first): as many as keep
// the product of their bounds within 2^60 (Brackett-Rozinsky and Lemire, "Batched ranged random
// integer generation", 2024). The batches of a table are filled to the brim; those of a permutation
// have the bounds 2..19, 20..31 and so on; what the last one does not need is left unused.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "data/joint_recall.h"
#include "engine/random.h"

namespace hax {

/// Equally bounded integers that are taken from one random word.
struct BoundedBatch {
  std::int32_t count = 0;
  std::uint64_t product = 1;  ///< of their bounds
};

/// Draws samples; holds scratch memory, so one object serves one thread. Copies are independent.
class SampleGenerator {
 public:
  /// Throws UsageError when the task is invalid.
  SampleGenerator(const JointRecallTask& task, std::uint64_t seed);

  const JointRecallTask& task() const { return task_; }
  std::uint64_t seed() const { return seed_; }

  /// Goes to the beginning of a slot.
  void start(std::uint64_t slot);
  /// The slot's next sample, whatever its split: unpadded tokens into `tokens`. Returns its hash.
  std::uint64_t draw(std::vector<std::int32_t>& tokens);
  /// The slot's next sample of a split. Returns its hash. Throws Error when 2^20 draws had none.
  std::uint64_t draw(Split split, std::vector<std::int32_t>& tokens);

 private:
  JointRecallTask task_;
  std::uint64_t seed_;
  RandomStream stream_;
  BoundedBatch values_batch_;
  TableSizes sizes_{};
  std::vector<std::int32_t> scratch_;
};

/// A number for each split, in the order of kSplits.
using SplitCounts = std::array<std::uint64_t, kSplits.size()>;

/// How many distinct samples of one combination of sizes each split has. Draws every one of them:
/// the cost is task.distinct_samples(sizes), which must be finite.
SplitCounts count_by_split(const JointRecallTask& task, const TableSizes& sizes);

/// Throws UsageError with the counts when the task has too few distinct samples to fill slots
/// 0 .. wanted-1 of each split without repeating one.
void require_supply(const JointRecallTask& task, const SplitCounts& wanted);

}  // namespace hax
