// What this machine can do at best, on one thread and on all, or on its GPU: the limits that floors
// are made of.
#pragma once

#include "train/step_work.h"

namespace hax::bench {

struct Limits {
  MachineLimits arithmetic;
  /// Triad over arrays that fit a core's second-level cache, bytes/s; on a GPU the copy's rate.
  double cache_bytes = 0;
  double memory_bytes = 0;    ///< triad or copy over arrays that fit no cache, bytes/s
  bool side_by_side = false;  ///< a GPU calculates, takes exponentials and fetches at once
};

/// Seconds for the arithmetic alone.
double arithmetic_seconds(const Work& work, const Limits& limits);
/// Bytes of numbers that are read and written once: all are float32.
double work_bytes(const Work& work);
/// Seconds for an op: arithmetic, or bytes where these take longer (on a core, from its cache).
double op_floor_seconds(const Work& work, const Limits& limits);

}  // namespace hax::bench
