// Packed sequences: laid end to end without padding, with the places where they begin and end.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace hax {

/// Offsets of the S sequences of a pack of T tokens. Ops that mix along time take it; positions
/// that selectors and attention speak of count from the start of their sequence. A cheap handle:
/// copies share.
class Sequences {
 public:
  Sequences() : Sequences(std::vector<std::int64_t>{0}) {}
  /// `offsets` [S+1]: 0 first, never decreasing, T last. `padded` [S]: the length that the released
  /// code would have padded each sequence to (norm_mode `released` counts those zero vectors);
  /// empty means the true lengths. Throws Error when offsets decrease or pass 2^31 - 1, or a padded
  /// length is shorter than its sequence.
  explicit Sequences(std::vector<std::int64_t> offsets, std::vector<std::int64_t> padded = {});
  /// One sequence of `length` tokens.
  static Sequences single(std::int64_t length) { return Sequences({0, length}); }
  static Sequences of_lengths(const std::vector<std::int64_t>& lengths,
                              std::vector<std::int64_t> padded = {});

  std::int64_t count() const { return static_cast<std::int64_t>(data_->offsets.size()) - 1; }
  std::int64_t tokens() const { return data_->offsets.back(); }
  std::int64_t begin(std::int64_t s) const { return data_->offsets[static_cast<std::size_t>(s)]; }
  std::int64_t end(std::int64_t s) const { return data_->offsets[static_cast<std::size_t>(s) + 1]; }
  std::int64_t length(std::int64_t s) const { return end(s) - begin(s); }
  /// Length including padding, >= length(s).
  std::int64_t padded(std::int64_t s) const { return data_->padded[static_cast<std::size_t>(s)]; }
  /// The offsets on another device, int32 [S+1]; uploaded once, then kept with the pack.
  Tensor offsets_on(Device device) const;
  /// The padded lengths on another device, int32 [S].
  Tensor padded_on(Device device) const;
  /// Tokens of the longest sequence; 0 when there is none.
  std::int64_t longest() const;
  /// What an op derives from the pack for its kernels (chunks, lengths, ...), made by `make` and
  /// uploaded once, then kept with the pack under `name`.
  Tensor derived_on(Device device, const char* name,
                    const std::function<std::vector<std::int32_t>()>& make) const;
  /// Keeps what was uploaded elsewhere as what derived_on() gives for `name`.
  void keep(const char* name, const Tensor& derived) const;
  /// The pack of sequences first..last alone.
  Sequences slice(std::int64_t first, std::int64_t last) const;
  /// The pack in which every sequence is followed by what `later` holds of it. Throws Error unless
  /// both have equally many sequences.
  Sequences joined(const Sequences& later) const;
  /// Throws Error naming `op` unless a [T, ...] tensor of `rows` rows fits this pack.
  void require_tokens(const char* op, std::int64_t rows) const;

 private:
  struct Data {
    std::vector<std::int64_t> offsets, padded;
    mutable std::mutex mutex;
    mutable std::map<std::string, Tensor> derived;
  };
  std::shared_ptr<const Data> data_;
};

}  // namespace hax
