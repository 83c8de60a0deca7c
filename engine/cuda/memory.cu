#include "engine/cuda/memory.h"

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "engine/caching_pool.h"
#include "engine/check.h"
#include "engine/cuda/lane.h"
#include "engine/cuda/runtime.h"

namespace hax::cuda {
namespace {

#ifdef __CUDACC__
constexpr bool kHostMemory = false;
#else
constexpr bool kHostMemory = true;
#endif
constexpr CachingPool::System kSystem{system_allocate, system_free, kHostMemory};

// Never destroyed: tensors with static storage may outlive any other static object.
CachingPool& common_pool() {
  static auto* pool = new CachingPool(kSystem);
  return *pool;
}

// Of this thread's lane, and of the graph that it captures; null: the common one.
thread_local std::shared_ptr<CachingPool> lane_pool, private_pool;  // NOLINT

CachingPool& base_pool() { return lane_pool ? *lane_pool : common_pool(); }

// Which blocks came from a private pool.
struct Owners {
  std::mutex mutex;
  std::unordered_map<void*, std::shared_ptr<CachingPool>> pools;
  std::atomic<bool> any = false;
};
Owners& owners() {
  static auto* the = new Owners;
  return *the;
}

std::shared_ptr<CachingPool> take_owner(void* block) {
  if (!owners().any) return nullptr;
  const std::scoped_lock lock(owners().mutex);
  const auto entry = owners().pools.find(block);
  if (entry == owners().pools.end()) return nullptr;
  std::shared_ptr<CachingPool> pool = std::move(entry->second);
  owners().pools.erase(entry);
  return pool;
}

[[noreturn]] void out_of_memory(std::size_t bytes, const std::source_location& where) {
  const FreeMemory memory = free_memory();
  const MemoryStats stats = base_pool().stats();
  throw OutOfMemory(fmt::format(
      "out of memory on cuda: {} needs {} bytes, {} of {} are free and tensors hold {}; use a "
      "smaller batch or model",
      asker_of(where), bytes, memory.free, memory.total, stats.bytes_in_use));
}

bool overlap(const void* a, const void* b, std::size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a),
             second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + bytes && second < first + bytes;
}

}  // namespace

void* allocate(std::size_t bytes, const std::source_location& where) {
  const std::shared_ptr<CachingPool> own = private_pool ? private_pool : lane_pool;
  void* block = (own ? *own : common_pool()).allocate(bytes);
  if (block == nullptr && own) {  // what the others have cached may be what is missing
    base_pool().release();
    block = own->allocate(bytes);
  }
  if (block == nullptr) out_of_memory(bytes, where);
  if (own) {
    const std::scoped_lock lock(owners().mutex);
    owners().pools[block] = own;
    owners().any = true;
  }
  mark_uninitialized(block, bytes);
  return block;
}

void deallocate(void* memory, std::size_t bytes) noexcept {
  const std::shared_ptr<CachingPool> own = take_owner(memory);
  (own ? *own : common_pool()).deallocate(memory, bytes);
}

void copy_bytes(Device to, void* destination, Device from, const void* source, std::size_t bytes) {
  if (from.is_cpu()) return copy_to_device(destination, source, bytes);
  if (to.is_cpu()) {
    copy_to_host(destination, source, bytes);
    return;
  }
  if (destination == source) return;
  if (!overlap(destination, source, bytes)) return copy_on_device(destination, source, bytes);
  void* between = allocate(bytes);
  copy_on_device(between, source, bytes);
  copy_on_device(destination, between, bytes);
  deallocate(between, bytes);
}

MemoryStats memory_stats() { return base_pool().stats(); }
void reset_peak_memory() { base_pool().reset_peak(); }
void release_cached_memory() {
  wait_for_stream();  // queued work may still use what is given back
  base_pool().release();
}

PrivatePool::PrivatePool(std::shared_ptr<CachingPool> pool)
    : pool_(pool ? std::move(pool) : std::make_shared<CachingPool>(kSystem)),
      before_(private_pool) {
  private_pool = pool_;
}
PrivatePool::~PrivatePool() { private_pool = before_; }

Lane::Lane() : pool_(std::make_shared<CachingPool>(kSystem)) {
  check(lane_pool == nullptr, "cuda: a lane inside a lane");
  check(why_no_device().empty(), "cuda: {}", why_no_device());
  queue_ = make_queue();
  use_queue(queue_);
  lane_pool = pool_;
}

// Blocks still in use keep the pool alive.
Lane::~Lane() {
  lane_pool = nullptr;
  use_queue(nullptr);
  if (queue_ != nullptr) free_queue(queue_);
}

}  // namespace hax::cuda
