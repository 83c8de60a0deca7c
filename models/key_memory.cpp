#include "models/key_memory.h"

#include <algorithm>

#include "ops/embedding/embedding.h"
#include "ops/join_rows/join_rows.h"
#include "ops/select_rows/select_rows.h"

namespace hax {
namespace {

Tensor pick(const Tensor& from, const Tensor& rows) {
  return from.defined() ? select_rows(from, rows) : Tensor{};
}

}  // namespace

std::int64_t KeyMemory::numbers() const {
  std::int64_t sum = 0;
  for (const Tensor* tensor : {&position, &K.value(), &V.value(), &score, &key_bin}) {
    if (tensor->defined()) sum += tensor->numel();
  }
  return sum;
}

Tensor positions_after(const std::vector<std::int64_t>& seen, const Sequences& piece) {
  Tensor position = Tensor::empty({piece.tokens()}, DType::int64);
  auto* out = position.data<std::int64_t>();
  for (std::int64_t s = 0; s < piece.count(); ++s) {
    for (std::int64_t t = 0; t < piece.length(s); ++t) {
      *out++ = seen[static_cast<std::size_t>(s)] + t;
    }
  }
  return position;
}

KeyMemory join(const KeyMemory& memory, const KeyMemory& piece) {
  if (memory.sequences.tokens() == 0) return piece;
  const auto joined = [&](const Tensor& past, const Tensor& present) {
    return present.defined() ? join_tensors(past, memory.sequences, present, piece.sequences)
                             : Tensor{};
  };
  return {memory.sequences.joined(piece.sequences),
          joined(memory.position, piece.position),
          join_rows(memory.K, memory.sequences, piece.K, piece.sequences),
          join_rows(memory.V, memory.sequences, piece.V, piece.sequences),
          joined(memory.score, piece.score),
          joined(memory.key_bin, piece.key_bin)};
}

Tensor rows_after(const Sequences& memory, const Sequences& piece, const Tensor& rows) {
  Tensor after = Tensor::empty({rows.defined() ? rows.numel() : piece.tokens()}, DType::int32);
  auto* out = after.data<std::int32_t>();
  std::int64_t s = 0;
  for (std::int64_t r = 0; r < after.numel(); ++r) {
    const std::int64_t row = rows.defined() ? rows.data<std::int32_t>()[r] : r;
    check(piece.begin(s) <= row && row < piece.tokens(),
          "key_memory: row {} of a piece of {} tokens, expected increasing rows of it", row,
          piece.tokens());
    while (row >= piece.end(s)) ++s;
    out[r] = static_cast<std::int32_t>(row + memory.end(s));
  }
  return after;
}

Sequences surviving_sequences(const Sequences& joined, const Tensor& rows) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(joined.count()));
  std::int64_t s = 0;
  for (const std::int32_t row : rows.values<std::int32_t>()) {
    while (row >= joined.end(s)) ++s;
    ++lengths[static_cast<std::size_t>(s)];
  }
  return Sequences::of_lengths(lengths);
}

KeyMemory surviving(const KeyMemory& joined, const KeySet& keys) {
  // How many survive decides sizes, so the host must know.
  const Tensor rows = surviving_rows(to_device(keys, kCpu));
  return {surviving_sequences(joined.sequences, rows),
          pick(joined.position, rows),
          embedding(joined.K, rows),
          embedding(joined.V, rows),
          pick(joined.score, rows),
          pick(joined.key_bin, rows)};
}

}  // namespace hax
