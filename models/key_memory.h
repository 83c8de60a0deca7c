// Keys kept from one piece of a sequence to the next: all that later queries may still see.
#pragma once

#include <vector>

#include "engine/autograd.h"
#include "ops/key_set/key_set.h"

namespace hax {

/// Rows of keys, those of a piece or those kept from earlier ones. M rows over all sequences.
struct KeyMemory {
  Sequences sequences;  ///< which rows belong to which sequence
  Tensor position;      ///< int64 [M], in the whole sequence, increasing; always on the CPU
  Var K, V;             ///< [M, N], [M, E]
  Tensor score;         ///< [M], key selection only
  Tensor key_bin;       ///< int64 [M], hashing only

  /// Numbers kept: every element of every tensor above.
  std::int64_t numbers() const;
};

/// Positions of the rows of a piece, int64 [T], when seen[s] tokens of sequence s came before it.
Tensor positions_after(const std::vector<std::int64_t>& seen, const Sequences& piece);
/// The memory's rows followed by the piece's, in every sequence, with the tensors that the piece
/// has. A memory without rows may lack its tensors.
KeyMemory join(const KeyMemory& memory, const KeyMemory& piece);
/// Rows of the joined pack that hold the rows wanted (increasing; undefined: all) of the piece.
/// int32 [R]. Throws Error on rows that the piece does not have.
Tensor rows_after(const Sequences& memory, const Sequences& piece, const Tensor& rows);
/// The pack that is left when only `rows`, increasing, are kept of `joined`.
Sequences surviving_sequences(const Sequences& joined, const Tensor& rows);
/// What later queries may still see of `joined`, by `keys`, a set over it.
KeyMemory surviving(const KeyMemory& joined, const KeySet& keys);

}  // namespace hax
