#include "tools/report/costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "train/reporter.h"

namespace hax::results {

std::array<std::string, kCostHead.size()> cost_cells(const Row& row) {
  if (row.runs.empty()) return {"–", "–", "–", "–", "–"};
  double seconds = 0, train_seconds = 0, tokens = 0;
  std::int64_t peak = 0;
  bool known = true;
  std::set<std::string> threads;
  for (const Run& run : row.runs) {
    known = known && run.costs.steps > 0;
    if (!known) break;
    // A run that was killed has not timed the steps that it did twice.
    const double share =
        static_cast<double>(run.result->step) / static_cast<double>(run.costs.steps);
    seconds += run.costs.seconds * share + run.costs.evaluation_seconds;
    train_seconds += run.costs.seconds;
    tokens += static_cast<double>(run.costs.tokens);
    peak = std::max(peak, run.costs.peak_bytes);
    threads.insert(run.options.threads == 0 ? "all" : fmt::format("{}", run.options.threads));
  }
  const std::string parameters = fmt::format("{}", row.runs.front().result->parameters);
  if (!known) return {"–", "–", parameters, "–", "–"};
  return {format_duration(seconds / static_cast<double>(row.runs.size())),
          fmt::format("{:.0f}", tokens / std::max(train_seconds, 1e-9)), parameters,
          fmt::format("{:.1f}", static_cast<double>(peak) / 1e6),
          fmt::format("{}", fmt::join(threads, ", "))};
}

}  // namespace hax::results
