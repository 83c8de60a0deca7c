#include "engine/memory.h"

#include <cstdlib>
#include <cstring>

#include "engine/caching_pool.h"
#include "engine/check.h"
#include "engine/memory_trace.h"

namespace hax {
namespace {

constexpr std::size_t kAlignment = 64;

// Never destroyed: tensors with static storage may outlive any other static object.
CachingPool& cpu_pool() {
  static auto* pool = new CachingPool({
      .take = [](std::size_t bytes) { return std::aligned_alloc(kAlignment, bytes); },
      .give = [](void* block) noexcept { std::free(block); },
      .host_memory = true,
  });
  return *pool;
}

void require_cpu(Device device) { check(device.is_cpu(), "this build has no CUDA backend"); }

}  // namespace

void* allocate(Device device, std::size_t bytes) {
  require_cpu(device);
  void* block = cpu_pool().allocate(bytes);
  check(block != nullptr, "out of memory: a tensor needs {} bytes; use a smaller batch or model",
        bytes);
  MemoryTrace::note_taken(block, bytes);
  return block;
}

void deallocate(Device, void* memory, std::size_t bytes) noexcept {
  MemoryTrace::note_returned(memory);
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

void reserve_memory(Device device, std::size_t bytes, std::int64_t count) {
  require_cpu(device);
  check(cpu_pool().reserve(bytes, count), "out of memory: the system has no block of {} bytes left",
        bytes);
}

void release_cached_memory(Device device) {
  require_cpu(device);
  cpu_pool().release();
}

}  // namespace hax
