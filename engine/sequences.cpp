#include "engine/sequences.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace hax {

Sequences::Sequences(std::vector<std::int64_t> offsets, std::vector<std::int64_t> padded) {
  check(!offsets.empty() && offsets.front() == 0, "sequence offsets must start with 0");
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    check(offsets[i] >= offsets[i - 1], "sequence offsets must not decrease: {} follows {}",
          offsets[i], offsets[i - 1]);
  }
  check(offsets.back() <= std::numeric_limits<std::int32_t>::max(),
        "a pack of {} tokens: positions are 32-bit, at most {} fit", offsets.back(),
        std::numeric_limits<std::int32_t>::max());
  const bool given = !padded.empty();
  check(!given || padded.size() + 1 == offsets.size(), "{} padded lengths for {} sequences",
        padded.size(), offsets.size() - 1);
  padded.resize(offsets.size() - 1);
  for (std::size_t s = 0; s < padded.size(); ++s) {
    const std::int64_t length = offsets[s + 1] - offsets[s];
    if (!given) padded[s] = length;
    check(padded[s] >= length, "sequence {} has {} tokens but a padded length of {}", s, length,
          padded[s]);
  }
  auto data = std::make_shared<Data>();
  data->offsets = std::move(offsets);
  data->padded = std::move(padded);
  data_ = std::move(data);
}

Sequences Sequences::of_lengths(const std::vector<std::int64_t>& lengths,
                                std::vector<std::int64_t> padded) {
  std::vector<std::int64_t> offsets{0};
  for (const std::int64_t length : lengths) {
    // Bounded here, so that the sum below cannot overflow before the constructor looks at it.
    check(length >= 0 && length <= std::numeric_limits<std::int32_t>::max(),
          "sequence {} has {} tokens, expected 0 to {}", offsets.size() - 1, length,
          std::numeric_limits<std::int32_t>::max());
    offsets.push_back(offsets.back() + length);
  }
  return Sequences(std::move(offsets), std::move(padded));
}

Sequences Sequences::slice(std::int64_t first, std::int64_t last) const {
  check(0 <= first && first <= last && last <= count(),
        "sequences {}..{} of a pack of {} do not exist", first, last, count());
  std::vector<std::int64_t> lengths, padded_lengths;
  for (std::int64_t s = first; s < last; ++s) {
    lengths.push_back(length(s));
    padded_lengths.push_back(padded(s));
  }
  return of_lengths(lengths, std::move(padded_lengths));
}

Sequences Sequences::joined(const Sequences& later) const {
  check(count() == later.count(), "{} sequences cannot be followed by {}", count(), later.count());
  std::vector<std::int64_t> lengths, padded_lengths;
  for (std::int64_t s = 0; s < count(); ++s) {
    lengths.push_back(length(s) + later.length(s));
    padded_lengths.push_back(length(s) + later.padded(s));
  }
  return of_lengths(lengths, std::move(padded_lengths));
}

Tensor Sequences::offsets_on(Device device) const {
  return derived_on(device, "offsets", [this] {
    return std::vector<std::int32_t>(data_->offsets.begin(), data_->offsets.end());
  });
}

Tensor Sequences::padded_on(Device device) const {
  return derived_on(device, "padded", [this] {
    return std::vector<std::int32_t>(data_->padded.begin(), data_->padded.end());
  });
}

std::int64_t Sequences::longest() const {
  std::int64_t tokens = 0;
  for (std::int64_t s = 0; s < count(); ++s) tokens = std::max(tokens, length(s));
  return tokens;
}

Tensor Sequences::derived_on(Device device, const char* name,
                             const std::function<std::vector<std::int32_t>()>& make) const {
  const std::scoped_lock lock(data_->mutex);
  Tensor& derived = data_->derived[name];
  if (!derived.defined() || derived.device() != device) derived = Tensor::from(make()).to(device);
  return derived;
}

void Sequences::keep(const char* name, const Tensor& derived) const {
  const std::scoped_lock lock(data_->mutex);
  data_->derived[name] = derived;
}

void Sequences::require_tokens(const char* op, std::int64_t rows) const {
  check(rows == tokens(), "{}: {} rows for a pack of {} tokens", op, rows, tokens());
}

}  // namespace hax
