// Device memory behind engine/memory.h: the same caching pool, over the device's own memory. Work
// is queued on one stream, so a block may be handed out again while the work that used it is still
// waiting.
#pragma once

#include <cstddef>
#include <memory>

#include "engine/memory.h"

namespace hax {

class CachingPool;

namespace cuda {

/// Throws OutOfMemory that names the request and what is free.
void* allocate(std::size_t bytes,
               const std::source_location& where = std::source_location::current());
void deallocate(void* memory, std::size_t bytes) noexcept;
void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes);
MemoryStats memory_stats();
void reset_peak_memory();
void release_cached_memory();

/// While alive, memory that this thread asks for comes from a pool of its own. A graph's replays
/// write to the addresses that its capture was given, so nobody else may ever hold them.
class PrivatePool {
 public:
  /// A new pool, or `pool` once more: graphs that run one after the other may share one, as long as
  /// none reads what another left there.
  explicit PrivatePool(std::shared_ptr<CachingPool> pool = nullptr);
  ~PrivatePool();
  PrivatePool(const PrivatePool&) = delete;
  PrivatePool& operator=(const PrivatePool&) = delete;

  /// Keep this as long as the graph. Blocks still in use keep it alive on their own.
  std::shared_ptr<CachingPool> pool() const { return pool_; }

 private:
  std::shared_ptr<CachingPool> pool_, before_;
};

}  // namespace cuda
}  // namespace hax
