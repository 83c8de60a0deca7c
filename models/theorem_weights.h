// The weights of Propositions 3.2 and C.1, set by hand: a Mamba layer that overwrites what its
// token carries and keeps the rest, and an attention layer that looks for the same contexts and
// key. docs/theory.md derives them.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/tensor.h"

namespace hax {

/// Which tokens play which part.
struct RecallTokens {
  struct Range {
    std::int32_t first = 0, count = 1;
  };
  std::int32_t vocabulary = 0;
  std::vector<Range> levels;  ///< from the outermost contexts to the keys
  Range values;
};

/// Channels of the state: [z_1 .. z_w, v, is_v, class indicators]. There are w + 2 classes: the
/// levels, value, and anything else.
struct TheoremChannels {
  explicit TheoremChannels(const RecallTokens& tokens);

  std::vector<std::int64_t> level;  ///< first channel of z_l; level[w] is that of v
  std::int64_t is_value = 0, classes = 0, count = 0;

  std::int64_t levels() const { return static_cast<std::int64_t>(level.size()) - 1; }
  std::int64_t values() const { return level.back(); }
  std::int64_t value_width() const { return is_value - values(); }
  /// Numbers of a query or key: z_1 .. z_w and the value sign.
  std::int64_t query_width() const { return values() + 1; }
  std::int64_t class_count() const { return levels() + 2; }
};

/// E channels, G = w + 2 classes, N numbers of a query. All float32.
struct TheoremWeights {
  /// `seed` draws the token vectors and the `hash_bits` planes.
  TheoremWeights(const RecallTokens& tokens, const TheoremChannels& channels,
                 std::int64_t hash_bits, std::uint64_t seed);

  // Layer 1, by the names of Mamba's parameters; one state a channel.
  Tensor embedding;  ///< [vocabulary, E]
  Tensor x_proj;     ///< [G + 2, E]: the class indicators, B, C
  Tensor dt_weight;  ///< [E, G]
  Tensor dt_bias;    ///< [E]
  Tensor A_log;      ///< [E, 1]
  Tensor D;          ///< [E]
  // Layer 2.
  Tensor W_Q, b_Q;  ///< [N, E], [N]: (z_1 .. z_w, 1), times kSharpness
  Tensor W_K;       ///< [N, E]: (z_1 .. z_w, is_v)
  Tensor W_V;       ///< [value width, E]: v
  Tensor hash;      ///< [N, hash bits], N(0, 1)
  // Readout.
  Tensor values;  ///< [values, value width]: the vectors of the value tokens

  /// dt of a channel that is overwritten. Its power of two cancels without rounding against B = 1 /
  /// kStep, and exp(-kStep) times any state vanishes beside any float32.
  static constexpr double kStep = 128;
  /// Scale of the scores: a matching key beats one that differs in a single level by kSharpness
  /// times one minus the cosine of the two.
  static constexpr double kSharpness = 128;
};

}  // namespace hax
