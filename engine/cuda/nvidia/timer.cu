// Time by CUDA events.
#include "engine/cuda/timer.h"

#include "engine/cuda/nvidia/check.cuh"

namespace hax::cuda {

TimeMark::TimeMark() {
  (void)stream();  // throws where there is no device
  cudaEvent_t event = nullptr;
  require(cudaEventCreate(&event), "cudaEventCreate");
  event_ = event;
}

TimeMark::~TimeMark() { (void)cudaEventDestroy(static_cast<cudaEvent_t>(event_)); }

void TimeMark::record() {
  require(cudaEventRecord(static_cast<cudaEvent_t>(event_), stream()), "cudaEventRecord");
  recorded_ = true;
}

double TimeMark::since(const TimeMark& earlier) const {
  check(recorded_ && earlier.recorded_, "cuda: the time at a place that was never recorded");
  require(cudaEventSynchronize(static_cast<cudaEvent_t>(event_)), "waiting for the device");
  float milliseconds = 0;
  require(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier.event_),
                               static_cast<cudaEvent_t>(event_)),
          "cudaEventElapsedTime");
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace hax::cuda
