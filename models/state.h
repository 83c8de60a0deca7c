// What a model carries from one piece of its sequences to the next: with it, a text can be read in
// pieces (chunked prefill) or token by token (generation) and gives the logits of one piece.
// Page: docs/state.md
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "models/key_memory.h"
#include "ops/lsh/lsh.h"

namespace hax {

/// The last rows that a convolution has seen of every sequence, kernel - 1 or fewer.
struct ConvTail {
  Sequences sequences;
  Var rows;  ///< [M, C]
};

/// Carried by one layer. What a mixer does not need stays undefined. Vars: gradients flow from
/// piece to piece when they are wanted.
struct MixerState {
  std::array<ConvTail, 3> conv;      ///< Mamba: x; Mamba2: x, B, C
  Var ssm;                           ///< [S, E, N] (Mamba) or [S, heads, P, N] (Mamba2)
  KeyMemory keys;                    ///< of the sparse branch, or of an attention layer
  CarriedMean query_mean, key_mean;  ///< what hashing subtracts
  Var query_sum;                     ///< float64 [S, N], what keys are scored against
};

struct ModelState {
  /// Nothing seen yet of `sequences` sequences.
  ModelState(std::int64_t layers, std::int64_t sequences);

  std::vector<std::int64_t> seen;  ///< [S] tokens so far
  std::vector<MixerState> layers;

  /// Numbers carried by all sequences together, with positions and the one count of tokens.
  std::int64_t numbers() const;
  /// The same numbers without the graph that made them.
  ModelState detached() const;
};

/// causal_conv1d with SiLU that goes on from `tail` (null: from nothing) and replaces it.
Var convolve(const Var& x, const Var& weight, const Var& bias, const Sequences& sequences,
             ConvTail* tail);

}  // namespace hax
