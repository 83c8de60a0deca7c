// Device memory of the emulation: host memory that only kernels and copies may touch.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "engine/check.h"
#include "engine/cuda/emulation/runtime.h"
#include "engine/cuda/runtime.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace hax {
namespace {

constexpr std::size_t kPage = 4096;
constexpr int kGarbage = 0xFF;  // NaN in every floating type

// The device's memory: HAX_EMULATE_MEMORY bytes, 16 GiB by default.
std::size_t total() {
  static const std::size_t bytes = [] {
    const char* text = std::getenv("HAX_EMULATE_MEMORY");
    return text == nullptr ? std::size_t{16} << 30 : std::strtoull(text, nullptr, 10);
  }();
  return bytes;
}

// Blocks come from one reserved range of addresses, so that one call opens or closes all of them.
// A range that was given back is used again for requests of its size.
class Arena {
 public:
  void* take(std::size_t bytes) {
    const std::size_t size = (bytes + kPage - 1) / kPage * kPage;
    const std::scoped_lock lock(mutex_);
    if (in_use_ + size > total()) return nullptr;
    char* block = nullptr;
    if (std::vector<char*>& blocks = free_[size]; !blocks.empty()) {
      block = blocks.back();
      blocks.pop_back();
    } else {
      if (base_ == nullptr) reserve();
      if (used_ + size > kReserved) return nullptr;
      block = base_ + used_;
      used_ += size;
      if (open_ > 0) protect(block, size, true);
    }
    in_use_ += size;
    sizes_[block] = size;
    return block;
  }

  void give(char* block) noexcept {
    const std::scoped_lock lock(mutex_);
    const auto entry = sizes_.find(block);
    ::madvise(block, entry->second, MADV_DONTNEED);
    in_use_ -= entry->second;
    free_[entry->second].push_back(block);
    sizes_.erase(entry);
  }

  std::size_t in_use() {
    const std::scoped_lock lock(mutex_);
    return in_use_;
  }

  void open() {
    const std::scoped_lock lock(mutex_);
    if (open_++ == 0 && used_ > 0) protect(base_, used_, true);
  }
  void close() {
    const std::scoped_lock lock(mutex_);
    if (--open_ == 0 && used_ > 0) protect(base_, used_, false);
  }

 private:
  static constexpr std::size_t kReserved = std::size_t{1} << 40;

  void reserve() {
    void* memory =
        ::mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED, "the emulation cannot reserve addresses for device memory");
    base_ = static_cast<char*>(memory);
    const char* off = std::getenv("HAX_EMULATE_PROTECT");
    closes_ = off == nullptr || std::strcmp(off, "0") != 0;
  }
  void protect(char* begin, std::size_t bytes, bool open) const {
    if (!open && !closes_) return;
    ::mprotect(begin, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

  std::mutex mutex_;
  char* base_ = nullptr;
  bool closes_ = true;
  std::size_t used_ = 0, in_use_ = 0;
  int open_ = 0;
  std::map<std::size_t, std::vector<char*>> free_;
  std::map<char*, std::size_t> sizes_;
};

Arena& arena() {
  static auto* the = new Arena;  // tensors of static storage may outlive any other static object
  return *the;
}

}  // namespace

emulation::DeviceAccess::DeviceAccess() { arena().open(); }
emulation::DeviceAccess::~DeviceAccess() { arena().close(); }

namespace cuda {

void* system_allocate(std::size_t bytes) { return arena().take(bytes); }
void system_free(void* memory) noexcept { arena().give(static_cast<char*>(memory)); }

FreeMemory free_memory() {
  return {static_cast<std::int64_t>(total() - arena().in_use()),
          static_cast<std::int64_t>(total())};
}

void mark_uninitialized(void* memory, std::size_t bytes) {
  const emulation::DeviceAccess access;
  std::memset(memory, kGarbage, bytes);
}

}  // namespace cuda
}  // namespace hax
