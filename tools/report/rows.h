// Rows of the table: the runs of one architecture over learning rates and seeds.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/report/runs.h"

namespace hax::results {

struct Row {
  std::string title = {};    ///< the paper's name: "Mamba2 + HAX"
  std::string base, sparse;  ///< --base_arch and --sparse_arch
  /// The finished runs at the learning rate with the best mean validation accuracy, of the rates
  /// with the most finished runs; empty while none has finished.
  std::vector<Run> runs;
  std::size_t all = 0, finished = 0;  ///< runs at every rate
  std::optional<double> paper = {};   ///< accuracy in the paper, per cent

  double lr() const { return runs.front().options.lr; }
  double valid() const;  ///< mean accuracy, 0 to 1
  double test() const;
  /// Standard deviation of the test accuracy over seeds; none for a single run.
  std::optional<double> spread() const;
};

/// Runs that differ in nothing but learning rate, seed and machine share a row; rows are in the
/// order of `hax list`. Titles name what else differs between rows of one architecture.
std::vector<Row> make_rows(std::span<const Run> runs);

/// The mean over a row's runs, class by class; empty unless all runs recorded it.
std::vector<SizeCell> mean_sizes(const Row& row);
std::vector<DistanceClass> mean_distances(const Row& row);
/// The mean validation curve, over the steps that all runs of the row validated at.
std::vector<CurvePoint> mean_curve(const Row& row);

}  // namespace hax::results
