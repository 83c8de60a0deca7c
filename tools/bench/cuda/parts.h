// The parts of `hax bench --device cuda`, one file each.
#pragma once

#include "tools/bench/bench.h"

namespace hax::bench {

void bench_device_machine(Bench& bench);  ///< sets the limits
void bench_device_ops(Bench& bench);
void bench_device_large(Bench& bench);
void bench_device_step(Bench& bench);
void bench_device_together(Bench& bench);

}  // namespace hax::bench
