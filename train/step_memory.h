// How much memory of tensors a training step needs, known before it runs, and fetched before it is
// needed.
//
// What a sequence asks of the pool, and when, depends on its sizes alone: tokens, targets and
// distinct tokens. So a model is run on a few short sequences under a MemoryTrace; the sizes of
// every block are linear in the three, and a replay with the blocks of any other sequence tells its
// peak, with the pool's rounding. The count follows the ops by itself, whatever they save.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "models/model.h"

namespace hax {

/// What the memory of a sequence depends on.
struct SequenceSizes {
  std::int64_t tokens = 1, targets = 1;
  std::int64_t distinct = 1;  ///< different tokens in it
  bool operator==(const SequenceSizes&) const = default;
};

/// The sizes of a step: sequences between `least` and `most`.
struct StepSizes {
  SequenceSizes least = {}, most = {};
  std::int64_t batch = 1;  ///< sequences
  std::int64_t shards = 8, threads = 1;
};

struct StepMemory {
  std::int64_t parameters = 0;  ///< values, their gradients, both moments
  std::int64_t shards = 0;      ///< a buffer of gradients for each shard
  std::int64_t batch = 0;       ///< its tokens and targets, at most
  std::int64_t sequence = 0;    ///< what is alive in the largest sequence at its peak
  std::int64_t at_once = 0;     ///< sequences that run at the same time
  std::int64_t reserved = 0;    ///< of all blocks of every size that steps can ask for
  /// At most in use at any time in a step: while as many of the largest sequences as there are
  /// threads are at their peak together.
  std::int64_t peak() const { return parameters + shards + batch + at_once * sequence; }
};

/// Runs forward and backward of the model in float32 on a few sequences of about a thousand tokens.
class StepMemoryModel {
 public:
  explicit StepMemoryModel(const Model& model);

  /// False when sequences of other sizes ask the pool in another order (an op whose requests depend
  /// on the data), so that a few of them say nothing about others. predict() and reserve() then
  /// throw Error.
  bool predicts() const { return few_distinct_ && many_distinct_; }
  StepMemory predict(const StepSizes& sizes) const;
  /// Fetches from the system every block that steps of these sizes can ask for, whatever sequences
  /// meet on whatever threads: for each size class as many as the most that one sequence holds at
  /// once, over all lengths, times threads. Steps then ask the system for nothing. Throws Error
  /// when the system has no more.
  void reserve(const StepSizes& sizes) const;

 private:
  /// A block of the trace: bytes = fixed + tokens x ... + targets x ... + distinct x ...
  struct Block {
    double fixed = 0, token = 0, target = 0, distinct = 0;
    std::int64_t taken = 0, returned = 0;
    std::int64_t bytes(const SequenceSizes& sizes) const;
  };
  using Blocks = std::vector<Block>;
  struct Count {
    std::int64_t bytes = 0, count = 0;  // blocks of a size class
  };

  std::optional<Blocks> fit(const Model& model, const SequenceSizes& at,
                            const SequenceSizes& step) const;
  void require_predictable() const;
  const Blocks& blocks_at(const SequenceSizes& sizes) const;
  std::vector<Count> needed(const StepSizes& sizes) const;

  std::int64_t flat_bytes_ = 0;
  std::int64_t vocabulary_ = 0;
  // Where there are fewer distinct tokens than targets, row-wise work is done once for each of
  // them; else it is done once for each target. The two have different blocks.
  std::optional<Blocks> few_distinct_, many_distinct_;
};

}  // namespace hax
