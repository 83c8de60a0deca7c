// The two-layer model of Propositions 3.2 and C.1 with its weights set by hand, and what becomes of
// it when its second layer looks back in other ways (Proposition 3.3, Corollary 3.1).
// docs/theory.md explains it.
#pragma once

#include "models/growing_keys.h"
#include "models/theorem_weights.h"
#include "ops/lsh/lsh.h"

namespace hax {

/// How the second layer looks back from a query.
enum class LookBack : std::uint8_t {
  lsh,              ///< the latest `keys` of the query's bin
  window,           ///< the latest `keys`
  dilated,          ///< one in `dilation`; of these the latest `keys`
  window_and_sink,  ///< the latest keys - keys / 2, and the first keys / 2
  nothing,          ///< not at all: it answers with the value that the scan holds
  fixed_state,      ///< a second scan writes every value into `keys` states at the signs that its
                    ///< bin has there and reads with those of the query's bin: linear attention
};

struct TheoremOptions {
  LookBack look_back = LookBack::lsh;
  std::int64_t hash_bits = 40;         ///< 1 to 62
  std::int64_t keys = 64;              ///< at least 1; of window_and_sink, at least 2
  std::int64_t dilation = 1;           ///< at least 1
  LshCenter center = LshCenter::none;  ///< none or causal
  std::uint64_t seed = 1;
};

class TheoremModel {
 public:
  /// Throws Error when an option is out of range.
  TheoremModel(const RecallTokens& tokens, const TheoremOptions& options);

  /// All that is known of the past of one sequence.
  struct State {
    /// `length`: tokens to come, as far as known.
    explicit State(std::int64_t length = 0) : keys(length) {}

    std::int64_t seen = 0;             ///< tokens
    Tensor scan;                       ///< [1, E, 1]
    GrowingKeys keys;                  ///< of the attention
    Tensor fixed;                      ///< [1, value width, keys], fixed_state only
    CarriedMean query_mean, key_mean;  ///< with a centre only
  };

  /// What an attention did in a piece.
  struct Trace {
    Tensor key_bin;    ///< int64 [T], hashing only
    Tensor query_bin;  ///< int64 [R], hashing only
    KeySet keys;       ///< over the keys kept so far and those of the piece
    Tensor position;   ///< int64: where these stand in the sequence
    Tensor rows;       ///< int32 [R]: which of these are the queries
  };

  /// The next piece of a sequence: tokens int32 [T], and the rows to answer, int32 [R], increasing
  /// -> logits [R, values]. Goes on from `state` and updates it. Throws Error naming a token
  /// outside the vocabulary.
  Tensor forward(const Tensor& tokens, const Tensor& rows, State& state,
                 Trace* trace = nullptr) const;
  /// Layer 1 alone: its outputs, which are its states, [T, E].
  Var overwrite(const Tensor& tokens, State& state) const;

  const TheoremChannels& channels() const { return channels_; }
  const TheoremWeights& weights() const { return weights_; }
  const TheoremOptions& options() const { return options_; }

 private:
  Tensor bins_of(const Var& x, CarriedMean& mean) const;
  Var queries(const Var& y) const;
  Tensor query_bins(const Var& y, const Var& Q, const Tensor& rows, State& state) const;
  Var attend(const Var& y, const Tensor& rows, State& state, Trace* trace) const;
  Var read_fixed_state(const Var& y, const Tensor& rows, State& state) const;
  KeySet select(const KeyMemory& memory, const Tensor& query_bin, const Tensor& rows) const;

  TheoremOptions options_;
  TheoremChannels channels_;
  TheoremWeights weights_;
  // Of the fixed state.
  Tensor write_weight_, write_bias_;  // [value width, E], [value width]: dt
  Tensor signs_;                      // int64 [keys]: the bits of a bin that make a sign
};

/// The largest entry of each row: int32 [R], the first of equals.
Tensor argmax_rows(const Tensor& x);

}  // namespace hax
