#include "ops/key_set/key_sweep.h"

#include <algorithm>

namespace hax {

void KeySweep::enter(std::int64_t s, std::int32_t from) {
  const std::int64_t begin = keys_.sequences.begin(s);
  const auto length = static_cast<std::int32_t>(keys_.sequences.length(s));
  death_ = keys_.death.data<std::int32_t>() + begin;
  shared_ = alive_ = 0;
  shared_until_ = -1;
  next_death_ = KeySet::kForever;
  // One more than can be alive: slots are written before it is known whether they count.
  list_.resize(std::max(list_.size(), static_cast<std::size_t>(length) + 1));
  for (next_ = 0; next_ < from; ++next_) {
    const std::int32_t death = death_[next_];
    if (death <= from) continue;
    list_[alive_++] = next_;
    next_death_ = std::min(next_death_, death);
  }
  segments_.clear();
  bins_.clear();
  if (!keys_.banded()) return;
  query_bin_ = keys_.query_bin.data<std::int64_t>() + begin;
  expire_ = keys_.expire.data<std::int32_t>() + begin;
  order_ = keys_.order.data<std::int32_t>() + begin;
  find_segments(keys_.key_bin.data<std::int64_t>() + begin, length, from);
}

void KeySweep::find_segments(const std::int64_t* key_bin, std::int32_t length, std::int32_t from) {
  for (std::int32_t p = 0; p < length;) {
    const std::int64_t bin = key_bin[order_[p]];
    // Longer and longer steps inside the bin, then by halves between its last key known and `end`.
    std::int32_t last = p, step = 1;
    while (step < length - last && key_bin[order_[last + step]] == bin) {
      last += step;
      step *= 2;
    }
    std::int32_t end = last + std::min(step, length - last);
    while (end - last > 1) {
      const std::int32_t middle = last + (end - last) / 2;
      (key_bin[order_[middle]] == bin ? last : end) = middle;
    }
    const std::int32_t* tail = std::lower_bound(order_ + p, order_ + end, from);
    const std::int32_t* head = std::partition_point(
        order_ + p, tail, [this, from](std::int32_t j) { return expire_[j] <= from; });
    bins_.push_back(bin);
    segments_.push_back(
        {static_cast<std::int32_t>(head - order_), static_cast<std::int32_t>(tail - order_), end});
    p = end;
  }
}

// Brings the alive up to date: those that query i sees by position.
void KeySweep::take_up(std::int32_t i) {
  if (i > shared_until_ && shared_ > 0) {
    shared_ = 0;
    next_death_ = i;
  }
  if (next_death_ <= i) drop_dead(i);
  for (; next_ <= i; ++next_) {
    const std::int32_t death = death_[next_];
    if (death <= i) continue;
    list_[alive_++] = next_;
    next_death_ = std::min(next_death_, death);
  }
}

void KeySweep::drop_dead(std::int32_t i) {
  std::size_t kept = shared_;
  next_death_ = KeySet::kForever;
  for (std::size_t z = shared_; z < alive_; ++z) {
    const std::int32_t j = list_[z], death = death_[j];
    list_[kept] = j;
    kept += death > i ? 1U : 0U;
    next_death_ = std::min(next_death_, death > i ? death : KeySet::kForever);
  }
  alive_ = kept;
}

void KeySweep::add_band(std::int32_t i, std::size_t& count) {
  // A binary search without branches: which way it turns cannot be predicted.
  const std::int64_t bin = query_bin_[i];
  std::size_t at = 0;
  for (std::size_t left = bins_.size(); left > 1;) {
    const std::size_t half = left / 2;
    at += half * static_cast<std::size_t>(bins_[at + half] <= bin);
    left -= half;
  }
  if (bins_[at] != bin) return;
  Segment* const segment = &segments_[at];
  while (segment->tail < segment->end && order_[segment->tail] <= i) ++segment->tail;
  while (segment->head < segment->tail && expire_[order_[segment->head]] <= i) ++segment->head;
  for (std::int32_t p = segment->head; p < segment->tail; ++p) {
    const std::int32_t j = order_[p];
    list_[count] = j;
    count += death_[j] <= i ? 1U : 0U;  // otherwise it is among the alive
  }
}

std::span<const std::int32_t> KeySweep::keys_of(std::int32_t i) {
  take_up(i);
  std::size_t count = alive_;
  if (!segments_.empty()) add_band(i, count);
  return {list_.data(), count};
}

std::size_t KeySweep::share(std::int32_t first, std::int32_t last) {
  shared_until_ = -1;  // of the queries so far
  take_up(first);
  rest_.resize(list_.size());
  std::size_t rest = 0;
  next_death_ = KeySet::kForever;
  for (std::size_t z = 0; z < alive_; ++z) {
    const std::int32_t j = list_[z], death = death_[j];
    const bool lasting = death > last;
    list_[shared_] = rest_[rest] = j;
    shared_ += lasting ? 1U : 0U;
    rest += lasting ? 0U : 1U;
    next_death_ = std::min(next_death_, lasting ? KeySet::kForever : death);
  }
  std::copy_n(rest_.data(), rest, list_.data() + shared_);
  shared_until_ = last;
  return shared_;
}

}  // namespace hax
