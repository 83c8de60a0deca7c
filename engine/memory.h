// Memory of tensors: a caching pool per device, so that after warm-up nothing is requested from the
// system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

#include "engine/check.h"
#include "engine/device.h"

namespace hax {

/// No memory is left. The message names what asked for how much, and on CUDA what there is.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// The op in whose folder a request stands; "a tensor" for requests of anything else.
std::string asker_of(const std::source_location& where);

/// `bytes` of uninitialised memory, aligned to 64 bytes. Throws OutOfMemory, naming who asks by
/// `where`, when the system has none left, even after the cached blocks were returned to it.
void* allocate(Device device, std::size_t bytes,
               const std::source_location& where = std::source_location::current());
/// Gives memory of allocate() back to the pool. `bytes` as it was asked for.
void deallocate(Device device, void* memory, std::size_t bytes) noexcept;
/// Copies between or within devices; the ranges may overlap.
void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes);

struct MemoryStats {
  std::int64_t system_requests = 0;  ///< blocks ever requested from the system
  std::int64_t bytes_reserved = 0;   ///< held from the system, in use or cached
  std::int64_t bytes_in_use = 0;     ///< handed out now
  std::int64_t peak_bytes_in_use = 0;
};
MemoryStats memory_stats(Device device);
/// Starts peak_bytes_in_use anew from what is in use now.
void reset_peak_memory(Device device);
/// What a request for `bytes` takes up in the pool.
std::size_t block_bytes(std::size_t bytes);
/// Fetches blocks from the system until `count` that can hold `bytes` are cached, so that this many
/// can be had later without asking it. Throws Error when it has none left.
void reserve_memory(Device device, std::size_t bytes, std::int64_t count);
/// Returns every cached block to the system.
void release_cached_memory(Device device);

}  // namespace hax
