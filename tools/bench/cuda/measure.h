// Times on the device.
#pragma once

#include <functional>

#include "tools/bench/statistics.h"

namespace hax::bench {

/// Times of a run of `work` on the device, by marks around as many runs as take about a
/// millisecond. `work` only queues; one run to warm up goes first.
Timing time_on_device(const Effort& effort, const std::function<void()>& work);

/// Launches that `work` queues.
double launches_of(const std::function<void()>& work);

}  // namespace hax::bench
