// Times on the device.
#pragma once

#include <functional>
#include <string>

#include "tools/bench/bench.h"
#include "tools/bench/statistics.h"

namespace hax::bench {

/// What is to be timed: it only queues work.
using DeviceWork = std::function<void()>;

/// Times of a run of `work` on the device, by marks around as many runs as take about a
/// millisecond. A run to warm up goes first.
Timing time_on_device(const Effort& effort, const DeviceWork& work);

/// Runs of `first`, and of what `both` does beyond it. The two are timed in turn.
struct Passes {
  Timing first, rest;
};
Passes time_passes(const Effort& effort, const DeviceWork& first, const DeviceWork& both);

/// Launches that `work` queues.
double launches_of(const DeviceWork& work);

/// Measures a row, or says in it why that cannot be: a kernel that is not written yet, or memory
/// that is not there. Other errors pass.
void row_or_reason(Bench& bench, const std::string& name, const std::function<void()>& measure_row);

}  // namespace hax::bench
