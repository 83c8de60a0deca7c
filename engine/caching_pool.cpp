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
constexpr std::size_t kSmallest = 256;
constexpr int kSmallestLog = 8;

// Sizes are rounded up to a quarter of a power of two: at most 25 % is wasted and a few classes
// serve all lengths. Class 0 is up to 256 bytes, 1 to 4 are 320, 384, 448 and 512, and so on.
std::size_t class_of(std::size_t bytes) {
  if (bytes <= kSmallest) return 0;
  const int log = static_cast<int>(std::bit_width(bytes - 1)) - 1;
  const std::size_t quarter = std::size_t{1} << (log - 2);
  const std::size_t quarters = (bytes + quarter - 1) / quarter;  // 5 to 8
  return 4 * static_cast<std::size_t>(log - kSmallestLog) + quarters - 4;
}

std::size_t size_of_class(std::size_t index) {
  if (index == 0) return kSmallest;
  const std::size_t quarters = 5 + (index - 1) % 4;
  return quarters << ((index - 1) / 4 + kSmallestLog - 2);
}

}  // namespace

std::size_t block_bytes(std::size_t bytes) { return size_of_class(class_of(bytes)); }

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
  const std::size_t index = class_of(bytes);
  void* block = take(index);
  if (block == nullptr) {  // the cached blocks of other sizes may be what is missing
    release();
    block = take(index);
  }
  if (block != nullptr) set_addressable(block, bytes, size_of_class(index));
  return block;
}

void CachingPool::deallocate(void* block, std::size_t bytes) noexcept {
  const std::size_t index = class_of(bytes), size = size_of_class(index);
  const std::scoped_lock lock(mutex_);
  stats_.bytes_in_use -= static_cast<std::int64_t>(size);
  try {
    free_[index].push_back(block);
    set_addressable(block, 0, size);
  } catch (const std::bad_alloc&) {  // no room to remember it
    give_back(block, size);
  }
}

bool CachingPool::reserve(std::size_t bytes, std::int64_t count) {
  if (bytes > kMaxBytes) return false;
  const std::size_t index = class_of(bytes);
  const std::scoped_lock lock(mutex_);
  std::vector<void*>& cached = free_[index];
  while (static_cast<std::int64_t>(cached.size()) < count) {
    cached.reserve(cached.size() + 1);
    void* block = from_system(index);
    if (block == nullptr) return false;
    cached.push_back(block);
    set_addressable(block, 0, size_of_class(index));
  }
  return true;
}

void CachingPool::release() {
  const std::scoped_lock lock(mutex_);
  for (std::size_t index = 0; index < kClasses; ++index) {
    for (void* block : free_[index]) give_back(block, size_of_class(index));
    free_[index].clear();
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
void* CachingPool::take(std::size_t index) {
  const std::scoped_lock lock(mutex_);
  void* block = nullptr;
  if (std::vector<void*>& cached = free_[index]; !cached.empty()) {
    block = cached.back();
    cached.pop_back();
  } else {
    block = from_system(index);
    if (block == nullptr) return nullptr;
  }
  stats_.bytes_in_use += static_cast<std::int64_t>(size_of_class(index));
  stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
  return block;
}

void* CachingPool::from_system(std::size_t index) {
  const std::size_t size = size_of_class(index);
  void* block = system_.take(size);
  if (block == nullptr) return nullptr;
  ++stats_.system_requests;
  stats_.bytes_reserved += static_cast<std::int64_t>(size);
  return block;
}

void CachingPool::give_back(void* block, std::size_t size) noexcept {
  set_addressable(block, size, size);
  system_.give(block);
  stats_.bytes_reserved -= static_cast<std::int64_t>(size);
}

}  // namespace hax
