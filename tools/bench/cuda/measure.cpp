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

namespace {

Passes time_launched(const Effort& effort, const DeviceWork& forward, const DeviceWork& backward) {
  cuda::TimeMark start, middle, end;
  std::vector<double> forwards, backwards;
  const auto round = [&] {
    start.record();
    forward();
    middle.record();
    if (backward) backward();
    end.record();
    forwards.push_back(middle.since(start));
    backwards.push_back(end.since(middle));
  };
  round();  // warms up
  forwards.clear();
  backwards.clear();
  repeat(effort, round);
  return {Timing(forwards), Timing(backwards)};
}

Passes time_replayed(const Effort& effort, const DeviceWork& forward, const DeviceWork& backward) {
  constexpr double kTooLittle = 1e-9;  // less than a mark can tell
  const DeviceWork both = [&] {
    forward();
    if (backward) backward();
  };
  const std::int64_t each = runs_between_marks(both);
  const auto runs = static_cast<double>(each);
  const Recording first(forward, each);
  std::optional<Recording> second;
  if (backward) second.emplace(both, each);
  const auto seconds = [&](const Recording& recording) {
    return seconds_between_marks([&] { recording.replay(); }, 1) / runs;
  };
  std::vector<double> forwards, backwards;
  const auto round = [&] {
    forwards.push_back(seconds(first));
    backwards.push_back(second ? std::max(seconds(*second) - forwards.back(), kTooLittle) : 0);
  };
  round();  // warms up
  forwards.clear();
  backwards.clear();
  repeat(effort, round);
  return {Timing(forwards), Timing(backwards)};
}

}  // namespace

WorkTimes time_work(const Effort& effort, const DeviceWork& forward, const DeviceWork& backward) {
  WorkTimes times{
      .launched = time_launched(effort, forward, backward), .replayed = {}, .why_not = {}};
  try {
    times.replayed = time_replayed(effort, forward, backward);
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error& error) {
    times.why_not = error.what();
  }
  return times;
}

Recording::Recording(const DeviceWork& work, std::int64_t times) {
  work();
  cuda::wait_for_stream();
  graph_ = std::make_unique<Graph>([&] {
    for (std::int64_t i = 0; i < times; ++i) work();
  });
}

double launches_of(const DeviceWork& work) {
  const std::int64_t before = cuda::launch_count();
  work();
  return static_cast<double>(cuda::launch_count() - before);
}

bool row_or_reason(Bench& bench, const std::string& name,
                   const std::function<void()>& measure_row) {
  Row row{.name = name};
  try {
    measure_row();
    return true;
  } catch (const OutOfMemory& error) {
    row.skipped = error.what();
  } catch (const Error& error) {
    if (std::string_view(error.what()).find("no CUDA kernel yet") == std::string_view::npos) throw;
    row.skipped = fmt::format("not yet on cuda ({})", error.what());
  }
  bench.report.add(row);
  return false;
}

}  // namespace hax::bench
