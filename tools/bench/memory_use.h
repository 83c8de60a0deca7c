// Peak memory of a piece of work: what the pool handed out, and what the process held.
#pragma once

#include <optional>

#include "engine/device.h"

namespace hax::bench {

struct MemoryUse {
  double pool_bytes = 0;  ///< of tensors, above what was in use before
  std::optional<double>
      resident_bytes;  ///< of the whole process; none where the system has no answer
};

/// Starts the peaks anew, with the pool's spare blocks returned to the system; read() tells how far
/// they got.
class MemoryWatch {
 public:
  explicit MemoryWatch(Device device = kCpu);
  MemoryUse read() const;

 private:
  Device device_;
  double before_ = 0;
  bool resident_known_ = false;
};

/// Bytes that could still be had without swapping; none where the system has no answer.
std::optional<double> available_memory();

}  // namespace hax::bench
