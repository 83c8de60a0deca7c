#include "tools/bench/cuda/measure.h"

#include "engine/cuda/runtime.h"
#include "engine/cuda/timer.h"
#include "engine/memory.h"

namespace hax::bench {
namespace {

constexpr double kSecondsBetweenMarks = 1e-3;
constexpr double kMostRuns = 64;

double seconds_between_marks(const DeviceWork& work, std::int64_t runs) {
  cuda::TimeMark start, end;
  start.record();
  for (std::int64_t i = 0; i < runs; ++i) work();
  end.record();
  return end.since(start) / static_cast<double>(runs);
}

// After a run to warm up.
std::int64_t runs_between_marks(const DeviceWork& work) {
  work();
  const double once = seconds_between_marks(work, 1);
  return static_cast<std::int64_t>(
      std::clamp(kSecondsBetweenMarks / std::max(once, 1e-9), 1.0, kMostRuns));
}

// Calls `round` until the effort is made.
template <class F>
void repeat(const Effort& effort, F&& round) {
  const double start = seconds_now();
  for (std::size_t i = 0; i < effort.runs || seconds_now() - start < effort.seconds; ++i) round();
  cuda::wait_for_stream();
}

}  // namespace

Timing time_on_device(const Effort& effort, const DeviceWork& work) {
  const std::int64_t runs = runs_between_marks(work);
  std::vector<double> seconds;
  repeat(effort, [&] { seconds.push_back(seconds_between_marks(work, runs)); });
  return Timing(seconds);
}

Passes time_passes(const Effort& effort, const DeviceWork& first, const DeviceWork& both) {
  constexpr double kTooLittle = 1e-9;  // less than a mark can tell
  const std::int64_t first_runs = runs_between_marks(first), both_runs = runs_between_marks(both);
  std::vector<double> firsts, rests;
  repeat(effort, [&] {
    firsts.push_back(seconds_between_marks(first, first_runs));
    const double together = seconds_between_marks(both, both_runs);
    rests.push_back(std::max(together - firsts.back(), kTooLittle));
  });
  return {Timing(firsts), Timing(rests)};
}

double launches_of(const DeviceWork& work) {
  const std::int64_t before = cuda::launch_count();
  work();
  return static_cast<double>(cuda::launch_count() - before);
}

void row_or_reason(Bench& bench, const std::string& name,
                   const std::function<void()>& measure_row) {
  Row row{.name = name};
  try {
    return measure_row();
  } catch (const OutOfMemory& error) {
    row.skipped = error.what();
  } catch (const Error& error) {
    if (std::string_view(error.what()).find("no CUDA kernel yet") == std::string_view::npos) throw;
    row.skipped = fmt::format("not yet on cuda ({})", error.what());
  }
  bench.report.add(row);
}

}  // namespace hax::bench
