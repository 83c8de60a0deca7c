#include "engine/memory.h"

#include <cstdlib>
#include <cstring>

#include "engine/caching_pool.h"
#include "engine/check.h"
#include "engine/cuda/memory.h"
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

// Calls f with what implements a device's memory.
template <class OnCpu, class OnCuda>
auto on(Device device, OnCpu on_cpu, [[maybe_unused]] OnCuda on_cuda) {
  if (device.is_cpu()) return on_cpu();
  if constexpr (kHasCuda) {
    return on_cuda(Cuda{});
  } else {
    check(false, "this build has no CUDA backend");
    return on_cpu();
  }
}

}  // namespace

std::string asker_of(const std::source_location& where) {
  const std::string_view path = where.file_name();
  constexpr std::string_view kOps = "ops/";
  const std::size_t at = path.rfind(kOps);
  if (at == std::string_view::npos || (at > 0 && path[at - 1] != '/')) return "a tensor";
  const std::string_view rest = path.substr(at + kOps.size());
  const std::size_t end = rest.find('/');
  if (path.substr(0, at).ends_with("tests/") || end == std::string_view::npos) return "a tensor";
  return std::string(rest.substr(0, end));
}

void* allocate(Device device, std::size_t bytes, const std::source_location& where) {
  return on(
      device,
      [&] {
        void* block = cpu_pool().allocate(bytes);
        if (block == nullptr) {
          throw OutOfMemory(
              fmt::format("out of memory: {} needs {} bytes; use a smaller batch or model",
                          asker_of(where), bytes));
        }
        MemoryTrace::note_taken(block, bytes);
        return block;
      },
      [&](auto) { return cuda::allocate(bytes, where); });
}

void deallocate(Device device, void* memory, std::size_t bytes) noexcept {
  on(
      device,
      [&] {
        MemoryTrace::note_returned(memory);
        cpu_pool().deallocate(memory, bytes);
      },
      [&](auto) { cuda::deallocate(memory, bytes); });
}

void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes) {
  const Device device = to.is_cpu() ? from : to;
  on(
      device,
      [&] {
        if (bytes != 0) std::memmove(destination, source, bytes);
      },
      [&](auto) {
        if (bytes != 0) cuda::copy_bytes(to, destination, from, source, bytes);
      });
}

MemoryStats memory_stats(Device device) {
  return on(
      device, [] { return cpu_pool().stats(); }, [](auto) { return cuda::memory_stats(); });
}

void reset_peak_memory(Device device) {
  on(
      device, [] { cpu_pool().reset_peak(); }, [](auto) { cuda::reset_peak_memory(); });
}

void reserve_memory(Device device, std::size_t bytes, std::int64_t count) {
  check(device.is_cpu(), "reserve_memory: only blocks on the CPU can be fetched ahead");
  check(cpu_pool().reserve(bytes, count), "out of memory: the system has no block of {} bytes left",
        bytes);
}

void release_cached_memory(Device device) {
  on(
      device, [] { cpu_pool().release(); }, [](auto) { cuda::release_cached_memory(); });
}

}  // namespace hax
