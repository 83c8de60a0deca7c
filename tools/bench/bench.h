// The parts of `hax bench`, one file each, and what they share.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/device.h"
#include "tools/bench/machine.h"
#include "tools/bench/report.h"
#include "tools/bench/training.h"

namespace hax::bench {

struct Bench {
  Report& report;
  Device device = kCpu;
  bool emulated = false;  ///< the device is played by the host: small sizes, figures of no GPU
  bool quick = false;
  int threads = 1;
  std::vector<std::string> archs;  ///< --arch; empty: the part's own choice
  std::int64_t batch_size = 64;    ///< sequences of a training step
  Limits one = {}, all = {};       ///< of one thread and of `threads`, or both of the device;
                                   ///< measured in this run

  TrainingSetting training() const {
    return {.batch_size = batch_size, .device = device, .small = emulated};
  }

  /// How long a row may take.
  Effort effort(double seconds = 1, std::size_t runs = 3) const {
    return quick ? Effort{seconds / 8, 2} : Effort{seconds, runs};
  }
};

struct Part {
  const char* name;
  const char* help;
  void (*run)(Bench&);
  bool in_quick;  ///< part of `hax bench --quick` when no part is named
};

/// The parts on CUDA; the first one sets the limits. Only in a build with it.
std::span<const Part> cuda_parts();

void bench_machine(Bench& bench);  ///< sets the limits
void bench_ops(Bench& bench);
void bench_index(Bench& bench);
void bench_attention(Bench& bench);
void bench_step(Bench& bench);
void bench_peer(Bench& bench);
void bench_scaling(Bench& bench);
void bench_long(Bench& bench);

}  // namespace hax::bench
