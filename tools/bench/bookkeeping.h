// What a graph costs beside the arithmetic in it: nodes, closures, shapes, checks, tensors from the
// pool.
#pragma once

#include "tools/bench/statistics.h"
#include "tools/bench/training.h"

namespace hax::bench {

struct Bookkeeping {
  double ops = 0;           ///< that a sequence records, and that run without a graph
  Timing op = Timing({0});  ///< one op that computes nothing, forward and backward, on one thread
};

/// Counts the ops of a sequence of `training` and times graphs of as many that compute nothing.
Bookkeeping measure_bookkeeping(const Training& training, const Effort& effort);

}  // namespace hax::bench
