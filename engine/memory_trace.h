// What a piece of work asks of the pool, in order: the ground for predicting its memory at other
// sizes (train/step_memory.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace hax {

/// While alive, notes what this thread takes from the pool and gives back. The innermost trace of a
/// thread sees it.
class MemoryTrace {
 public:
  struct Block {
    std::int64_t bytes = 0;          ///< as asked for
    std::int64_t taken = 0;          ///< when: takings and returns are counted together, from 0
    std::int64_t returned = kStays;  ///< kStays: not before the trace ended
    bool operator==(const Block&) const = default;
  };
  static constexpr std::int64_t kStays = INT64_MAX;

  MemoryTrace();
  ~MemoryTrace();
  MemoryTrace(const MemoryTrace&) = delete;
  MemoryTrace& operator=(const MemoryTrace&) = delete;

  /// In the order they were taken.
  const std::vector<Block>& blocks() const { return blocks_; }

  // Called by the pool.
  static void note_taken(const void* memory, std::size_t bytes);
  static void note_returned(const void* memory) noexcept;

 private:
  std::int64_t now_ = 0;
  std::vector<Block> blocks_;
  std::unordered_map<const void*, std::size_t> in_use_;  // place in blocks_
  MemoryTrace* outer_;
};

}  // namespace hax
