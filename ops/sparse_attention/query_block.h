// Some consecutive queries with their keys, and the order in which they are best computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace hax {

/// Queries of one bin see mostly the same keys of it, but consecutive queries have different bins.
/// In a long sequence the keys of all bins do not fit into the cache; with the queries of a block
/// taken bin by bin, those of one do.
class QueryBlock {
 public:
  void clear() {
    keys_.clear();
    ends_.clear();
    visits_.clear();
  }
  /// The next query of the block; the list is copied.
  void add(std::int64_t bin, std::span<const std::int32_t> list) {
    visits_.emplace_back(bin, static_cast<std::int32_t>(ends_.size()));
    keys_.insert(keys_.end(), list.begin(), list.end());
    ends_.push_back(keys_.size());
  }
  /// From now on in the order of their bins, of equal ones in that of the queries.
  void sort_by_bin() { std::ranges::sort(visits_); }

  std::int64_t size() const { return static_cast<std::int64_t>(visits_.size()); }
  /// The v-th query to visit: which of the block it is, and its keys until the next clear().
  std::int64_t query(std::int64_t v) const { return visits_[static_cast<std::size_t>(v)].second; }
  std::span<const std::int32_t> keys(std::int64_t v) const {
    const auto query = static_cast<std::size_t>(this->query(v));
    const std::size_t begin = query == 0 ? 0 : ends_[query - 1];
    return {keys_.data() + begin, ends_[query] - begin};
  }

 private:
  std::vector<std::int32_t> keys_;
  std::vector<std::size_t> ends_;
  std::vector<std::pair<std::int64_t, std::int32_t>> visits_;  // bin, query
};

}  // namespace hax
