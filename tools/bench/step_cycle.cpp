#include "tools/bench/step_cycle.h"

#include <numeric>

namespace hax::bench {
namespace {

constexpr double kRunSteps = 400000, kRunValidations = 800, kRunsASetting = 9;
constexpr std::int64_t kValidationSamples = 1440;

}  // namespace

std::vector<std::int64_t> batch_numbers(const Training& training, bool quick) {
  const std::int64_t cycle = training.cycle();
  if (quick) return {0, cycle / 2, cycle - 1};
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(cycle));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

double mean_tokens(const std::vector<Batch>& batches) {
  double sum = 0;
  for (const Batch& batch : batches) sum += static_cast<double>(batch.sequences.tokens());
  return sum / static_cast<double>(batches.size());
}

Work mean_work(const ModelConfig& config, const std::vector<Batch>& batches, bool removed) {
  Work sum;
  for (const Batch& batch : batches) {
    sum = sum + step_work(config, batch.sequences, batch.target_rows.numel(), removed);
  }
  return 1 / static_cast<double>(batches.size()) * sum;
}

CycleTiming::CycleTiming(const std::vector<std::vector<double>>& seconds) {
  const auto batches = static_cast<double>(seconds.size());
  for (const std::vector<double>& of_batch : seconds) {
    const Timing timing(of_batch);
    median += timing.median / batches;
    fastest += timing.fastest / batches;
    runs += static_cast<double>(timing.runs);
  }
}

void CycleTiming::into(Row& row) const {
  row.median_s = median;
  row.fastest_s = fastest;
  row.runs = runs;
}

double run_hours(double step_seconds, const Training& training, const Effort& effort) {
  const double validation = training.validation_seconds(kValidationSamples, effort);
  return (kRunSteps * step_seconds + kRunValidations * validation) / 3600;
}

Row table_row(const std::vector<std::string>& archs, double hours) {
  Row row{.name =
              fmt::format("whole table: {} settings x {:.0f} runs", archs.size(), kRunsASetting)};
  row.hours = kRunsASetting * hours;
  return row;
}

}  // namespace hax::bench
