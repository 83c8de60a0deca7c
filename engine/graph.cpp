#include "engine/graph.h"

#include <utility>

#include "engine/caching_pool.h"
#include "engine/check.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/runtime.h"

namespace hax {

Graph::Graph([[maybe_unused]] const std::function<void()>& work,
             [[maybe_unused]] std::shared_ptr<CachingPool> pool) {
  check(kHasCuda, "graph: this build has no CUDA backend");
  if constexpr (kHasCuda) {
    const cuda::PrivatePool memory(std::move(pool));
    pool_ = memory.pool();
    cuda::begin_capture();
    try {
      work();
    } catch (...) {
      cuda::abandon_capture();
      throw;
    }
    capture_ = cuda::end_capture();
  }
}

Graph::~Graph() {
  if constexpr (kHasCuda) cuda::free_capture(capture_);
}

void Graph::replay() const {
  if constexpr (kHasCuda) cuda::replay_capture(capture_);
}

}  // namespace hax
