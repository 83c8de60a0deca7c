// A KeyMemory of one sequence in buffers that grow in place: for long prefills without gradient,
// where joining and copying all keys for every piece would cost more than the attention.
#pragma once

#include "models/key_memory.h"

namespace hax {

class GrowingKeys {
 public:
  GrowingKeys() = default;
  /// Room for `rows` keys, taken when the first are appended; more is found when needed.
  explicit GrowingKeys(std::int64_t rows) : room_(rows) {}

  std::int64_t rows() const { return rows_; }
  /// The keys, as views that are good until the next change.
  KeyMemory view() const;
  /// Adds the keys of a piece; all pieces have the same tensors. Throws Error unless `piece` is one
  /// sequence whose rows fit those before.
  void append(const KeyMemory& piece);
  /// Keeps these rows only: int32, increasing. Views taken before hold other rows afterwards.
  /// Throws Error on rows that do not exist.
  void keep(const Tensor& rows);

 private:
  void append(Tensor& to, const Tensor& from);

  std::int64_t rows_ = 0, room_ = 0;
  bool started_ = false;                       // which tensors there are is settled
  Tensor position_, K_, V_, score_, key_bin_;  // [room, ...], or undefined
};

}  // namespace hax
