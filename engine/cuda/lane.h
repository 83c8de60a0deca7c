// Lanes: several threads use one GPU side by side, each as if it had the GPU for itself.
#pragma once

#include <memory>

namespace hax {

class CachingPool;

namespace cuda {

/// While alive, what this thread queues goes to a stream of its own, with its own cuBLAS workspace
/// and its own pool of memory, so that work of different lanes may run at the same time. Results do
/// not depend on lanes: within one, order is as ever. Tensors stay in the lane that made them: no
/// other may use them before this one is done (synchronize()). Not nested; a graph captured in a
/// lane is replayed there. Throws Error when there is no device or no stream.
class Lane {
 public:
  Lane();
  /// Waits for what is queued.
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

 private:
  std::shared_ptr<CachingPool> pool_;
  void* queue_ = nullptr;
};

}  // namespace cuda
}  // namespace hax
