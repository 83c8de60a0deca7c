#include "engine/pinned.h"

#include "engine/cuda/runtime.h"

namespace hax {

PinnedMemory::PinnedMemory(std::int64_t count) : count_(count) {
  check(kHasCuda, "pinned memory: this build has no CUDA backend");
  if constexpr (kHasCuda) {
    sent_ = cuda::make_event();
    memory_ = static_cast<std::int32_t*>(
        cuda::pinned_allocate(static_cast<std::size_t>(count) * sizeof(std::int32_t)));
  }
}

PinnedMemory::~PinnedMemory() {
  if constexpr (kHasCuda) {
    try {
      wait();
    } catch (const Error&) {  // the device failed: nothing reads any more
    }
    cuda::pinned_free(memory_);
    cuda::free_event(sent_);
  }
}

void PinnedMemory::send(Tensor& destination) {
  check(destination.numel() <= count_, "pinned memory: {} numbers wanted of {}",
        destination.numel(), count_);
  if constexpr (kHasCuda) {
    cuda::copy_pinned_to_device(destination.data<std::int32_t>(), memory_,
                                static_cast<std::size_t>(destination.bytes()));
    cuda::record_event(sent_);
  }
}

void PinnedMemory::wait() const {
  if constexpr (kHasCuda) cuda::wait_for_event(sent_);
}

}  // namespace hax
