// Host memory for copies to a device that run while the host goes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/tensor.h"

namespace hax {

/// int32 numbers on their way to CUDA. One thread fills and one sends; wait() lies between a send
/// and the next filling.
class PinnedMemory {
 public:
  /// Throws Error when the system has none left.
  explicit PinnedMemory(std::int64_t count);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  std::span<std::int32_t> numbers() { return {memory_, static_cast<std::size_t>(count_)}; }
  /// Queues a copy of the first numbers to `destination`, int32 on CUDA; returns at once.
  void send(Tensor& destination);
  /// Returns when the copies queued so far have read the memory.
  void wait() const;

 private:
  std::int64_t count_;
  std::int32_t* memory_ = nullptr;
  void* sent_ = nullptr;  // the event after the last copy
};

}  // namespace hax
