#include "engine/caching_pool.h"

#include <algorithm>
#include <bit>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace hax {
namespace {

// More than any machine has; keeps the arithmetic below far from overflow.
constexpr std::size_t kMaxBytes = std::size_t{1} << 56;

// Sizes are rounded up to a quarter of a power of two: at most 25 % is wasted and a few classes
// serve all lengths.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return 256;
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

}  // namespace

// Lets AddressSanitizer see a cached block, and what a block has beyond the bytes asked for, as out
// of bounds.
void CachingPool::set_addressable([[maybe_unused]] void* block, [[maybe_unused]] std::size_t bytes,
                                  [[maybe_unused]] std::size_t size) const {
#ifdef __SANITIZE_ADDRESS__
  if (!system_.host_memory) return;
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(block) + bytes, size - bytes);
#endif
}

void* CachingPool::allocate(std::size_t bytes) {
  if (bytes > kMaxBytes) return nullptr;
  const std::size_t size = size_class(bytes);
  void* block = take(size);
  if (block == nullptr) {  // the cached blocks of other sizes may be what is missing
    release();
    block = take(size);
  }
  if (block != nullptr) set_addressable(block, bytes, size);
  return block;
}

void CachingPool::deallocate(void* block, std::size_t bytes) noexcept {
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

void CachingPool::release() {
  const std::scoped_lock lock(mutex_);
  for (auto& [size, blocks] : free_) {
    for (void* block : blocks) give_back(block, size);
    blocks.clear();
  }
}

MemoryStats CachingPool::stats() {
  const std::scoped_lock lock(mutex_);
  return stats_;
}

void CachingPool::reset_peak() {
  const std::scoped_lock lock(mutex_);
  stats_.peak_bytes_in_use = stats_.bytes_in_use;
}

// A block of a size class, cached or new; null when the system has none.
void* CachingPool::take(std::size_t size) {
  const std::scoped_lock lock(mutex_);
  void* block = nullptr;
  if (const auto cached = free_.find(size); cached != free_.end() && !cached->second.empty()) {
    block = cached->second.back();
    cached->second.pop_back();
  } else {
    block = system_.take(size);
    if (block == nullptr) return nullptr;
    ++stats_.system_requests;
    stats_.bytes_reserved += static_cast<std::int64_t>(size);
  }
  stats_.bytes_in_use += static_cast<std::int64_t>(size);
  stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
  return block;
}

void CachingPool::give_back(void* block, std::size_t size) noexcept {
  set_addressable(block, size, size);
  system_.give(block);
  stats_.bytes_reserved -= static_cast<std::int64_t>(size);
}

}  // namespace hax
