// A graph: work on CUDA that is recorded once and then queued as a whole, which costs the host one
// call instead of one for every launch.
#pragma once

#include <functional>
#include <memory>

namespace hax {

class CachingPool;

class Graph {
 public:
  /// Records what `work` queues; nothing of it runs. Tensors made by `work` lie in `pool`, or in a
  /// new one. Replays read and write the addresses that `work` saw, so what it reads from outside
  /// must stay where it is. Throws Error when work cannot be recorded: when it waits for the device
  /// or copies from or to the host; and what `work` throws.
  explicit Graph(const std::function<void()>& work, std::shared_ptr<CachingPool> pool = nullptr);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// Queues the work.
  void replay() const;
  /// Graphs that run one after the other may share one, as long as none reads what another left.
  const std::shared_ptr<CachingPool>& pool() const { return pool_; }

 private:
  std::shared_ptr<CachingPool> pool_;
  void* capture_ = nullptr;
};

}  // namespace hax
