// Times on the device.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/graph.h"
#include "tools/bench/bench.h"
#include "tools/bench/statistics.h"

namespace hax::bench {

/// What is to be timed: it only queues work.
using DeviceWork = std::function<void()>;

/// Times of a run of `work` on the device, by marks around as many runs as take about a
/// millisecond. A run to warm up goes first.
Timing time_on_device(const Effort& effort, const DeviceWork& work);

/// Times of an op's two directions; of one that has no backward, the second is empty.
struct Passes {
  Timing forward = Timing({0}), backward = Timing({0});
};

/// The same work launch by launch, which the host may hold up, and as replays of a graph.
struct WorkTimes {
  Passes launched;
  std::optional<Passes> replayed;
  std::string why_not;  ///< there is no graph of it
};
/// `backward` follows a `forward`; may be empty. A graph's backward is what a graph of both takes
/// longer than one of forwards alone, in turn.
WorkTimes time_work(const Effort& effort, const DeviceWork& forward, const DeviceWork& backward);

/// A graph of `work`, some times over.
class Recording {
 public:
  /// Runs it once as it is, so that what is made at the first run is there. Throws Error when the
  /// work cannot be captured: when it waits for the device or copies from the host.
  Recording(const DeviceWork& work, std::int64_t times);

  void replay() const { graph_->replay(); }

 private:
  std::unique_ptr<Graph> graph_;
};

/// Launches that `work` queues.
double launches_of(const DeviceWork& work);

/// Measures a row, or says in it why that cannot be: a kernel that is not written yet, or memory
/// that is not there. False then; other errors pass.
bool row_or_reason(Bench& bench, const std::string& name, const std::function<void()>& measure_row);

}  // namespace hax::bench
