// A set of sample hashes. Equal samples have equal hashes; two different ones among n do with
// probability n^2 / 2^65 (6e-8 for the default dataset).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace hax {

/// Open addressing with linear probing, at most half full.
class HashSet {
 public:
  /// Room for `count` hashes; more may be inserted.
  explicit HashSet(std::uint64_t count = 0) { resize(count); }

  /// True when the hash was not there.
  bool insert(std::uint64_t hash) {
    if (hash == kEmpty) return !std::exchange(holds_empty_, true);
    for (std::uint64_t at = hash >> shift_;; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at] == hash) return false;
      if (slots_[at] == kEmpty) {
        slots_[at] = hash;
        if (++used_ * 2 > slots_.size()) grow();
        return true;
      }
    }
  }
  /// Hides the memory latency of an insert() a little later.
  void prefetch(std::uint64_t hash) const { __builtin_prefetch(&slots_[hash >> shift_]); }

 private:
  static constexpr std::uint64_t kEmpty = 0;

  void resize(std::uint64_t count) {
    const std::uint64_t size = std::bit_ceil(std::max<std::uint64_t>(2 * count + 2, 16));
    slots_.assign(size, kEmpty);
    used_ = 0;
    // The high bits: hashes of one split share low bits.
    shift_ = 64 - std::countr_zero(size);
  }
  void grow() {
    const std::vector<std::uint64_t> old = std::move(slots_);
    resize(old.size());
    for (const std::uint64_t hash : old) {
      if (hash != kEmpty) insert(hash);
    }
  }

  std::vector<std::uint64_t> slots_;
  std::uint64_t used_ = 0;
  int shift_ = 0;
  bool holds_empty_ = false;
};

}  // namespace hax
