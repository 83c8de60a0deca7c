// Time by the host's clock: what was queued before a place is done when the place is recorded.
#include "engine/cuda/timer.h"

#include <chrono>

#include "engine/check.h"

namespace hax::cuda {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

TimeMark::TimeMark() : event_(new Clock::time_point) {}
TimeMark::~TimeMark() { delete static_cast<Clock::time_point*>(event_); }

void TimeMark::record() {
  *static_cast<Clock::time_point*>(event_) = Clock::now();
  recorded_ = true;
}

double TimeMark::since(const TimeMark& earlier) const {
  check(recorded_ && earlier.recorded_, "cuda: the time at a place that was never recorded");
  return std::chrono::duration<double>(*static_cast<Clock::time_point*>(event_) -
                                       *static_cast<Clock::time_point*>(earlier.event_))
      .count();
}

}  // namespace hax::cuda
