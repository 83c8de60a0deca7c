#include "models/growing_keys.h"

#include <algorithm>
#include <vector>

namespace hax {
namespace {

Tensor room_for(std::int64_t rows, const Tensor& like) {
  std::vector<std::int64_t> sizes{rows};
  for (int axis = 1; axis < like.rank(); ++axis) sizes.push_back(like.size(axis));
  return Tensor::empty(Shape(std::span<const std::int64_t>(sizes)), like.dtype(), like.device());
}

Tensor first_rows(const Tensor& tensor, std::int64_t rows) {
  return tensor.defined() ? tensor.rows(0, rows) : Tensor{};
}

}  // namespace

KeyMemory GrowingKeys::view() const {
  return {Sequences::single(rows_), first_rows(position_, rows_), first_rows(K_, rows_),
          first_rows(V_, rows_),    first_rows(score_, rows_),    first_rows(key_bin_, rows_)};
}

void GrowingKeys::append(const KeyMemory& piece) {
  check(piece.sequences.count() == 1, "growing_keys: {} sequences, expected one",
        piece.sequences.count());
  const std::int64_t needed = rows_ + piece.sequences.tokens();
  if (needed > room_) room_ = std::max(needed, 2 * room_);
  append(position_, piece.position);
  append(K_, piece.K.value());
  append(V_, piece.V.value());
  append(score_, piece.score);
  append(key_bin_, piece.key_bin);
  started_ = true;
  rows_ = needed;
}

void GrowingKeys::append(Tensor& to, const Tensor& from) {
  check(!started_ || to.defined() == from.defined(),
        "growing_keys: a piece lacks a tensor that others have, or has one that they lack");
  if (!from.defined()) return;
  if (!to.defined() || to.size(0) < room_) {
    Tensor larger = room_for(room_, from);
    if (rows_ > 0) {
      Tensor past = larger.rows(0, rows_);
      copy(past, to.rows(0, rows_));
    }
    to = larger;
  }
  Tensor place = to.rows(rows_, rows_ + from.size(0));
  copy(place, from);
}

void GrowingKeys::keep(const Tensor& rows) {
  const auto kept = rows.values<std::int32_t>();
  std::int32_t before = -1;
  for (const std::int32_t row : kept) {
    check(row > before && row < rows_,
          "growing_keys: row {} follows {}, expected increasing rows below {}", row, before, rows_);
    before = row;
  }
  for (Tensor* tensor : {&position_, &K_, &V_, &score_, &key_bin_}) {
    if (!tensor->defined()) continue;
    std::int64_t to = 0;
    for (std::size_t first = 0, last = 0; first < kept.size(); first = last) {
      // A stretch of neighbours moves as one.
      while (last < kept.size() && kept[last] - kept[first] == static_cast<int>(last - first)) {
        ++last;
      }
      const auto count = static_cast<std::int64_t>(last - first);
      Tensor place = tensor->rows(to, to + count);
      copy(place, tensor->rows(kept[first], kept[first] + count));
      to += count;
    }
  }
  rows_ = rows.numel();
}

}  // namespace hax
