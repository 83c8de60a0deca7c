// What this machine can do at best, on one thread and on all: the limits that floors are made of.
#pragma once

#include "train/step_work.h"

namespace hax::bench {

struct Limits {
  MachineLimits arithmetic;
  double cache_bytes = 0;   ///< triad over arrays that fit a core's second-level cache, bytes/s
  double memory_bytes = 0;  ///< triad over arrays that do not fit any, bytes/s
};

/// Seconds for an op whose data is in cache: arithmetic, or bytes where these take longer.
double op_floor_seconds(const Work& work, const Limits& limits);

}  // namespace hax::bench
