// Helpers for going over all samples of a dataset.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <vector>

#include "data/hash_set.h"
#include "data/joint_recall.h"

namespace hax {

/// Says where a sample occurred first.
class DuplicateFinder {
 public:
  struct Place {
    Split split;
    std::int64_t index;
  };

  /// Samples of a split are inserted in their order. Returns the place of an equal one before.
  std::optional<Place> insert(Split split, std::uint64_t hash) {
    hashes_[static_cast<std::size_t>(split)].push_back(hash);
    if (seen_.insert(hash)) return std::nullopt;
    for (const Split earlier : kSplits) {
      const auto& hashes = hashes_[static_cast<std::size_t>(earlier)];
      const auto found = std::find(hashes.begin(), hashes.end(), hash);
      if (found != hashes.end()) return Place{earlier, found - hashes.begin()};
    }
    return std::nullopt;  // not reached: what was seen is in a list
  }

 private:
  HashSet seen_;
  std::array<std::vector<std::uint64_t>, kSplits.size()> hashes_;
};

/// Carries the exception of the lowest index out of a parallel loop.
class FirstFault {
 public:
  template <class F>
  void guard(std::int64_t index, F&& work) {
    try {
      work();
    } catch (...) {
#pragma omp critical(hax_first_fault)
      if (!error_ || index < index_) {
        error_ = std::current_exception();
        index_ = index;
      }
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::exception_ptr error_;
  std::int64_t index_ = 0;
};

}  // namespace hax
