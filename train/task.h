// What the trainer trains on: batches of packed sequences with target rows. The trainer knows
// nothing else of the data.
#pragma once

#include <memory>
#include <string>

#include "data/batch.h"
#include "data/joint_recall.h"
#include "data/target_facts.h"
#include "train/options.h"
#include "train/step_memory.h"

namespace hax {

/// What the sizes of sequences lie between, in every split.
struct SequenceBounds {
  SequenceSizes least, most;
};

class Task {
 public:
  virtual ~Task() = default;
  /// Tokens a model needs.
  virtual std::int64_t vocab_size() const = 0;
  virtual SequenceBounds bounds() const = 0;
  /// One line for people: what the data is.
  virtual std::string describe() const = 0;
  /// Names the data itself, wherever it lies: equal for equal samples. A resumed run must find the
  /// same.
  virtual std::string fingerprint() const = 0;
  /// Samples first, ..., first + count - 1 of the endless training order.
  virtual Batch train_batch(std::int64_t first, std::int64_t count) const = 0;
  /// Samples of the validation or test split.
  virtual std::int64_t count(Split split) const = 0;
  virtual Batch batch(Split split, std::int64_t first, std::int64_t count) const = 0;
  /// A token for the eye.
  virtual std::string token_label(std::int32_t token) const { return std::to_string(token); }
  /// What each target of a batch asks for, to report accuracy apart; empty where a task cannot
  /// tell.
  virtual std::vector<TargetFacts> target_facts(const Batch&) const { return {}; }
};

/// Those of a joint recall task.
SequenceBounds sequence_bounds(const JointRecallTask& task);

/// Joint recall: from the folder of --data_dir, or streamed. Throws UsageError or Error when the
/// options do not fit together, or the folder is not a dataset.
std::unique_ptr<Task> open_task(const TrainOptions& options);

}  // namespace hax
