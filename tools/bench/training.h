// A training run as `hax train` does it by default, for timing its steps.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/bench/statistics.h"
#include "train/device_step.h"
#include "train/step.h"
#include "train/step_work.h"
#include "train/task.h"

namespace hax::bench {

/// "mamba+sign_bin_lsh+key_selection": base and sparse branch, resolved. Throws UsageError naming
/// the nearest right word.
ModelConfig resolved_arch(const std::string& arch);

/// The settings of the paper's table 3, the twice as wide bases included.
std::vector<std::string> paper_archs();
/// Those that the targets speak of: HAX on both bases, the wide bases, Samba.
std::vector<std::string> main_archs();

struct TrainingSetting {
  std::int64_t batch_size = 64;  ///< sequences of a step
  Device device = kCpu;
  bool small = false;  ///< tables of 2 x 2 to 3 x 3 entries instead of the paper's, to try things
  bool graphs = true;  ///< on a device: replay steps whose lengths have come before
};

class Training {
 public:
  /// `config` resolved.
  explicit Training(const ModelConfig& config, const TrainingSetting& setting = {});

  /// The generator's order repeats its lengths after this many batches.
  std::int64_t cycle() const;

  const Model& model() const { return *model_; }
  Batch batch(std::int64_t index) const {
    return task_->train_batch(index * options_.bsz, options_.bsz);
  }
  /// What `hax train` does with a batch on the CPU: gradients, their norm, the update, the checks.
  void step(const Batch& batch);
  /// What `hax train` does on a device: the next batch, which has been made meanwhile, and all of
  /// that. Batches come in their order, from number 0 on. Returns when the device is done.
  void next_step();
  /// Of the steps on a device; "" when nothing is in their way.
  std::string why_no_graphs() const {
    return device_steps_ ? device_steps_->why_no_graphs() : std::string();
  }
  /// Forward and backward of one sequence on this thread, for a Watcher to look at.
  void run_sequence() const;
  /// Tensors of a step with this batch at their peak, at most: predicted, nothing of it is run.
  std::optional<double> predicted_bytes(const Batch& batch, int threads) const;
  /// Seconds to validate on `samples` samples, from one batch.
  double validation_seconds(std::int64_t samples, const Effort& effort) const;

 private:
  void check_finite(double loss, double norm, bool good_update) const;

  TrainOptions options_;
  bool graphs_;
  std::int64_t sizes_;  // of tables, all combinations
  std::unique_ptr<Task> task_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Parameters> parameters_, gradients_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<DeviceSteps> device_steps_;  // on a device, from the first step on
  std::int64_t number_ = 0;
};

/// The same samples with every sequence filled up with padding tokens that are computed like any
/// other.
Batch filled_up(const Batch& batch);

}  // namespace hax::bench
