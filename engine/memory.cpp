#include "engine/memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#include "engine/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace hax {
namespace {

constexpr std::size_t kAlignment = 64;

// More than any machine has; keeps the arithmetic below far from overflow.
constexpr std::size_t kMaxBytes = std::size_t{1} << 56;

// Sizes are rounded up to a quarter of a power of two: at most 25 % is wasted and a few classes
// serve all lengths.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

// Lets AddressSanitizer see a cached block, and what a block has beyond the bytes asked for, as out
// of bounds.
void set_addressable([[maybe_unused]] void* block, [[maybe_unused]] std::size_t bytes,
                     [[maybe_unused]] std::size_t size) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(block) + bytes, size - bytes);
#endif
}

class CpuPool {
 public:
  void* allocate(std::size_t bytes) {
    void* block = nullptr;
    if (bytes <= kMaxBytes) {
      const std::size_t size = size_class(bytes);
      block = take(size);
      if (block == nullptr) {  // the cached blocks of other sizes may be what is missing
        release();
        block = take(size);
      }
      if (block != nullptr) set_addressable(block, bytes, size);
    }
    check(block != nullptr, "out of memory: a tensor needs {} bytes; use a smaller batch or model",
          bytes);
    return block;
  }

  void deallocate(void* block, std::size_t bytes) noexcept {
    const std::size_t size = size_class(bytes);
    const std::scoped_lock lock(mutex_);
    stats_.bytes_in_use -= static_cast<std::int64_t>(size);
    try {
      std::vector<void*>& cached = free_[size];
      cached.push_back(block);
      set_addressable(block, 0, size);
    } catch (const std::bad_alloc&) {  // no room to remember it
      give_back(block, size);
    }
  }

  void release() {
    const std::scoped_lock lock(mutex_);
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) give_back(block, size);
      blocks.clear();
    }
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }

 private:
  // A block of a size class, cached or new; null when the system has none.
  void* take(std::size_t size) {
    const std::scoped_lock lock(mutex_);
    void* block = nullptr;
    if (const auto cached = free_.find(size); cached != free_.end() && !cached->second.empty()) {
      block = cached->second.back();
      cached->second.pop_back();
    } else {
      block = std::aligned_alloc(kAlignment, size);
      if (block == nullptr) return nullptr;
      ++stats_.system_requests;
      stats_.bytes_reserved += static_cast<std::int64_t>(size);
    }
    stats_.bytes_in_use += static_cast<std::int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    return block;
  }

  void give_back(void* block, std::size_t size) noexcept {
    set_addressable(block, size, size);
    std::free(block);
    stats_.bytes_reserved -= static_cast<std::int64_t>(size);
  }

  std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

// Never destroyed: tensors with static storage may outlive any other static object.
CpuPool& cpu_pool() {
  static auto* pool = new CpuPool;
  return *pool;
}

void require_cpu(Device device) { check(device.is_cpu(), "this build has no CUDA backend"); }

}  // namespace

void* allocate(Device device, std::size_t bytes) {
  require_cpu(device);
  return cpu_pool().allocate(bytes);
}

void deallocate(Device, void* memory, std::size_t bytes) noexcept {
  cpu_pool().deallocate(memory, bytes);
}

void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes) {
  require_cpu(to);
  require_cpu(from);
  if (bytes != 0) std::memmove(destination, source, bytes);
}

MemoryStats memory_stats(Device device) {
  require_cpu(device);
  return cpu_pool().stats();
}

void reset_peak_memory(Device device) {
  require_cpu(device);
  cpu_pool().reset_peak();
}

void release_cached_memory(Device device) {
  require_cpu(device);
  cpu_pool().release();
}

}  // namespace hax
