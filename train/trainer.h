// The training loop: step, log, validate, keep the best, save, resume bit for bit.
#pragma once

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "train/checkpoint.h"
#include "train/options.h"
#include "train/task.h"

namespace hax {

/// What a run ended with.
struct RunResult {
  bool finished = false;  ///< false when it was stopped early
  std::int64_t step = 0, best_step = 0;
  double valid_accuracy = 0, test_accuracy = 0, test_loss = 0;
};

/// A run folder holds recipe.json (the options), metrics.jsonl (one object a line), log.txt, last/
/// and best/ (checkpoints), and result.json when it has finished.
class Trainer {
 public:
  /// A new run in options.save_dir. Throws UsageError when that folder already holds a run.
  static Trainer start(const TrainOptions& options);
  /// Goes on where the run in `folder` stands, exactly as if it had never stopped. `options` are
  /// the run's own, with the step count, device or threads changed at most.
  static Trainer resume(const std::filesystem::path& folder, const TrainOptions& options);
  ~Trainer();
  Trainer(Trainer&&) noexcept;

  /// Trains to the end, or until `stop` becomes true: then it saves and returns. Throws Error when
  /// the loss or a gradient is not finite, naming the first op that produced it.
  /// Tells `out` (may be null) how it goes, and log.txt.
  RunResult run(const std::atomic<bool>& stop, std::FILE* out = stdout);

 private:
  struct Run;
  explicit Trainer(std::unique_ptr<Run> run);
  std::unique_ptr<Run> run_;
};

/// The options a run folder was started with. Throws Error when the folder is not a run.
TrainOptions options_of_run(const std::filesystem::path& folder);

}  // namespace hax
