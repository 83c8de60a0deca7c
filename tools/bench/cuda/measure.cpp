#include "tools/bench/cuda/measure.h"

#include "engine/cuda/runtime.h"
#include "engine/cuda/timer.h"

namespace hax::bench {
namespace {

constexpr double kSecondsBetweenMarks = 1e-3;
constexpr double kMostRuns = 64;

double seconds_between_marks(const std::function<void()>& work, std::int64_t runs) {
  cuda::TimeMark start, end;
  start.record();
  for (std::int64_t i = 0; i < runs; ++i) work();
  end.record();
  return end.since(start) / static_cast<double>(runs);
}

}  // namespace

Timing time_on_device(const Effort& effort, const std::function<void()>& work) {
  work();
  const double once = seconds_between_marks(work, 1);
  const auto runs = static_cast<std::int64_t>(
      std::clamp(kSecondsBetweenMarks / std::max(once, 1e-9), 1.0, kMostRuns));
  std::vector<double> seconds;
  const double start = seconds_now();
  while (seconds.size() < effort.runs || seconds_now() - start < effort.seconds) {
    seconds.push_back(seconds_between_marks(work, runs));
  }
  cuda::wait_for_stream();
  return Timing(seconds);
}

double launches_of(const std::function<void()>& work) {
  const std::int64_t before = cuda::launch_count();
  work();
  return static_cast<double>(cuda::launch_count() - before);
}

}  // namespace hax::bench
