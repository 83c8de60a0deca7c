// Run folders, read back for tables and pictures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/options.h"
#include "train/run_costs.h"

namespace hax::results {

struct CurvePoint {
  std::int64_t step = 0;
  double accuracy = 0;  ///< of a validation, 0 to 1
};

struct SizeCell {
  std::int64_t contexts = 0, keys = 0, samples = 0;
  double accuracy = 0;
};

struct DistanceClass {
  std::int64_t from = 0, below = 0, targets = 0;
  double accuracy = 0;
};

/// What result.json says of a finished run; accuracies 0 to 1.
struct Result {
  std::int64_t parameters = 0, step = 0, best_step = 0, test_samples = 0;
  double valid_accuracy = 0, test_accuracy = 0;
};

struct Run {
  std::filesystem::path folder;
  TrainOptions options;
  std::string task;              ///< what the data is, in words
  std::int64_t step = 0;         ///< the last one in metrics.jsonl
  std::optional<Result> result;  ///< none: not finished
  std::vector<CurvePoint> curve;
  std::vector<SizeCell> sizes;           ///< empty: the run's version of hax did not record it
  std::vector<DistanceClass> distances;  ///< likewise
  RunCosts costs;

  bool finished() const { return result.has_value(); }
};

/// Reads one run folder. Throws Error naming the file that is missing or damaged; metrics,
/// breakdown and costs may be missing.
Run read_run(const std::filesystem::path& folder);

/// All run folders at or below `root`, sorted by path. Throws Error when there is none.
std::vector<std::filesystem::path> find_runs(const std::filesystem::path& root);

}  // namespace hax::results
