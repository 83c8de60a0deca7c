#include "engine/memory_trace.h"

#include <utility>

namespace hax {
namespace {

thread_local MemoryTrace* current = nullptr;

}  // namespace

MemoryTrace::MemoryTrace() : outer_(std::exchange(current, this)) {}
MemoryTrace::~MemoryTrace() { current = outer_; }

void MemoryTrace::note_taken(const void* memory, std::size_t bytes) {
  if (current == nullptr) return;
  current->in_use_[memory] = current->blocks_.size();
  current->blocks_.push_back({static_cast<std::int64_t>(bytes), current->now_++, kStays});
}

void MemoryTrace::note_returned(const void* memory) noexcept {
  if (current == nullptr) return;
  const auto found = current->in_use_.find(memory);
  if (found == current->in_use_.end()) return;  // older than the trace
  current->blocks_[found->second].returned = current->now_++;
  current->in_use_.erase(found);
}

}  // namespace hax
