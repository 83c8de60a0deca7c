// What rows of training steps are about: the batches after which lengths repeat, and a whole run.
#pragma once

#include <string>
#include <vector>

#include "tools/bench/report.h"
#include "tools/bench/training.h"

namespace hax::bench {

/// Numbers of the batches after which lengths repeat; with `quick` three of them.
std::vector<std::int64_t> batch_numbers(const Training& training, bool quick);
double mean_tokens(const std::vector<Batch>& batches);
/// See step_work().
Work mean_work(const ModelConfig& config, const std::vector<Batch>& batches, bool removed);

/// Every batch has its own median; a row is their mean.
struct CycleTiming {
  double median = 0, fastest = 0, runs = 0;

  /// `seconds` of the steps of every batch.
  explicit CycleTiming(const std::vector<std::vector<double>>& seconds);
  void into(Row& row) const;
};

/// Hours of a run: 400,000 steps and 800 validations on 1,440 samples.
double run_hours(double step_seconds, const Training& training, const Effort& effort);
/// Of nine such runs a setting.
Row table_row(const std::vector<std::string>& archs, double hours);

}  // namespace hax::bench
