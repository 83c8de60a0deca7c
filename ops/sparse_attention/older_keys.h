// Gradients of keys that are older than the queries of a piece of a sequence.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/key_set/key_set.h"
#include "ops/sparse_attention/gather_rows.h"

namespace hax {

/// A piece of the queries of sequence s adds to rows of dK and dV from its first query's on, and
/// here to those of the older keys that its queries may see, which other pieces may see too.
template <class T>
class OlderKeys {
 public:
  OlderKeys(const KeySet& keys, std::int64_t s, std::int32_t first, std::int64_t states,
            std::int64_t channels)
      : first_(first) {
    const std::int64_t begin = keys.sequences.begin(s);
    const std::int32_t* death = keys.death.data<std::int32_t>() + begin;
    const std::int32_t* expire = keys.banded() ? keys.expire.data<std::int32_t>() + begin : death;
    slot_.resize(static_cast<std::size_t>(first));
    for (std::int32_t j = 0; j < first; ++j) {
      if (std::max(death[j], expire[j]) <= first) continue;
      slot_[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(keys_.size());
      keys_.push_back(j);
    }
    const auto count = static_cast<std::int64_t>(keys_.size());
    dK_ = Tensor::zeros({count, states}, dtype_of<T>);
    dV_ = Tensor::zeros({count, channels}, dtype_of<T>);
  }

  /// The rows of all keys, given those of the sequence's dK and dV.
  GradientRows<T> dK(T* sequence) { return {sequence, first_, dK_.data<T>(), slot_.data()}; }
  GradientRows<T> dV(T* sequence) { return {sequence, first_, dV_.data<T>(), slot_.data()}; }

  /// Adds the gradients of keys begin..end-1 to the sequence's.
  void add_to(std::int64_t begin, std::int64_t end, T* dK, T* dV) const {
    const std::int64_t states = dK_.size(1), channels = dV_.size(1);
    const auto at = std::ranges::lower_bound(keys_, begin);
    for (auto key = at; key != keys_.end() && *key < end; ++key) {
      const std::int64_t slot = key - keys_.begin();
      add(dK_.data<T>() + slot * states, states, dK + *key * states);
      add(dV_.data<T>() + slot * channels, channels, dV + *key * channels);
    }
  }

 private:
  static void add(const T* from, std::int64_t count, T* to) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
  }

  std::int32_t first_;
  std::vector<std::int32_t> slot_;  // of keys before first_; without meaning for those not in keys_
  std::vector<std::int32_t> keys_;  // increasing
  Tensor dK_, dV_;                  // [keys, N], [keys, E]
};

}  // namespace hax
