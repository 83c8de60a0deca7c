// The pool behind allocate(): blocks that tensors gave back wait for the next tensor of their size
// class.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <vector>

#include "engine/memory.h"

namespace hax {

class CachingPool {
 public:
  /// Where blocks come from.
  struct System {
    void* (*take)(std::size_t bytes);  ///< null when there is none left
    void (*give)(void* block) noexcept;
    /// The host may address it, so AddressSanitizer can watch it.
    bool host_memory;
  };
  explicit CachingPool(System system) : system_(system) {}
  ~CachingPool() { release(); }
  CachingPool(const CachingPool&) = delete;
  CachingPool& operator=(const CachingPool&) = delete;

  /// Null when the system has no block left, even after the cached ones were returned to it.
  void* allocate(std::size_t bytes);
  void deallocate(void* block, std::size_t bytes) noexcept;
  /// Fetches blocks until `count` that can hold `bytes` are cached; false when the system has none
  /// left.
  bool reserve(std::size_t bytes, std::int64_t count);
  void release();
  MemoryStats stats();
  void reset_peak();

 private:
  static constexpr std::size_t kClasses = 193;  // up to 2^56 bytes

  void* take(std::size_t size_class);
  void* from_system(std::size_t size_class);
  void give_back(void* block, std::size_t size) noexcept;
  void set_addressable(void* block, std::size_t bytes, std::size_t size) const;

  System system_;
  std::mutex mutex_;
  std::array<std::vector<void*>, kClasses> free_;  // by size class
  MemoryStats stats_;
};

}  // namespace hax
