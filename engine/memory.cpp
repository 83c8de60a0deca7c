#include "engine/memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/check.h"

namespace hax {
namespace {

constexpr std::size_t kAlignment = 64;

// Sizes are rounded up to a quarter of a power of two: at most 25 % is wasted and a few classes
// serve all lengths.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

class CpuPool {
 public:
  void* allocate(std::size_t bytes) {
    const std::size_t size = size_class(bytes);
    {
      const std::scoped_lock lock(mutex_);
      account(size);
      if (auto& free = free_[size]; !free.empty()) {
        void* memory = free.back();
        free.pop_back();
        return memory;
      }
      ++stats_.system_requests;
      stats_.bytes_reserved += static_cast<std::int64_t>(size);
    }
    if (void* memory = std::aligned_alloc(kAlignment, size)) return memory;
    {
      const std::scoped_lock lock(mutex_);
      stats_.bytes_reserved -= static_cast<std::int64_t>(size);
      stats_.bytes_in_use -= static_cast<std::int64_t>(size);
    }
    throw Error(
        fmt::format("out of memory: a tensor needs {} bytes; use a smaller batch or model", bytes));
  }

  void deallocate(void* memory, std::size_t bytes) noexcept {
    const std::size_t size = size_class(bytes);
    const std::scoped_lock lock(mutex_);
    stats_.bytes_in_use -= static_cast<std::int64_t>(size);
    free_[size].push_back(memory);
  }

  void release() {
    const std::scoped_lock lock(mutex_);
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) std::free(block);
      stats_.bytes_reserved -= static_cast<std::int64_t>(size * blocks.size());
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
  void account(std::size_t size) {
    stats_.bytes_in_use += static_cast<std::int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
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
  if (bytes != 0) std::memcpy(destination, source, bytes);
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
