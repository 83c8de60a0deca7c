// What an architecture costs to run: the state that a sequence carries from token to token, and the
// work of a token. Arithmetic on the configuration; nothing is run.
//
// Letters: L tokens so far, H hidden_size, E intermediate_size, N state_size, W conv_kernel, G
// n_groups, k keys of a component, k' keys a query sees.
#pragma once

#include <cstdint>

#include "models/config.h"

namespace hax {

/// What must be kept of the first L tokens so that the next ones can be computed without them,
/// counted in numbers, summed over layers. The number L itself is not counted.
struct StateNumbers {
  /// The inputs that the convolution will still read: min(L, W - 1) rows of E (Mamba) or
  /// E + 2 G N (Mamba2).
  std::int64_t convolution = 0;
  /// The state of the scan: E x N (for Mamba2 that is heads x head_dim x N).
  std::int64_t scan = 0;
  /// Keys of the sparse branch that a later query may see, each with K (N), V (E) and its position,
  /// with key selection also its score, with hashing its bin. By component, at most L together:
  /// full: L; sliding_window: min(L, k - 1); sink and key_selection: min(L, k);
  /// dilated: min(L / d, k), at most, as the oldest may just have been seen for the last time;
  /// hashing: min(L, k x bins), at most, as in a sequence that fills all 2^h (sign bits) or h
  /// (argmax) bins.
  std::int64_t keys = 0;
  /// Hashing with the causal centre: the sums of Q and K, 2 N. Key selection: the sum of Q, N.
  std::int64_t running_sums = 0;
  /// Attention layers: K and V of min(L, window - 1) positions, of L without a window, each
  /// kv_heads x head size.
  std::int64_t attention = 0;

  std::int64_t total() const { return convolution + scan + keys + running_sums + attention; }
};

/// Arithmetic of a forward pass, per token: the mean over the positions 0..L-1 of a sequence, in
/// FLOPs, summed over layers. A multiplication and an addition count as two, an exponential as one.
/// Element by element work on one row (norms, activations, gates, residual sums, rotations,
/// softplus, running sums) is not counted; it is a few percent. So is what selecting keys costs
/// beside hashing and scoring: comparisons.
struct TokenFlops {
  /// The linear maps of the mixers. Mamba: in_proj, x_proj, dt_proj, out_proj; Mamba2: in_proj,
  /// out_proj; attention: q, k, v, o; sparse branch: xx_proj.
  double projections = 0;
  /// 2 W for each convolved channel.
  double convolution = 0;
  /// Per channel and state: decay into the state and read-out. Mamba 7 (exp(dt A) is 2, the update
  /// 3, the read-out 2); Mamba2 5, its decay being one a head (as a recurrence: chunked products
  /// trade more arithmetic for speed).
  double scan = 0;
  /// Scores and weighted sums. Per visible key: 2 N + 2 E + 1 in the sparse branch, 4 x head size +
  /// 1 for each head of an attention layer. See mean_visible_keys().
  double attention = 0;
  /// 2 N h each for Q and K.
  double hashing = 0;
  /// Key selection's network, 2N -> 2N -> 2N -> 1.
  double scoring = 0;
  /// The three products of the SwiGLU layer.
  double mlp = 0;
  /// 2 H x vocabulary.
  double logits = 0;

  double total() const {
    return projections + convolution + scan + attention + hashing + scoring + mlp + logits;
  }
};

/// The terms of the state after `length` tokens. Throws UsageError when `length` is not from 1 to
/// 2^30, or when the configuration has no state to carry: released norms and an LSH centre over the
/// sequence look at all of it at once. The configuration must be resolved, here and below.
StateNumbers state_terms(const ModelConfig& config, std::int64_t length);
std::int64_t state_numbers(const ModelConfig& config, std::int64_t length);

/// The terms of the work. Throws UsageError when `length` is out of range.
TokenFlops flop_terms(const ModelConfig& config, std::int64_t length);
double flops_per_token(const ModelConfig& config, std::int64_t length);

/// How many keys a query in the sparse branch sees, as a mean over the positions of a sequence.
/// Exact for fixed patterns and key selection; with hashing at most, as if the whole sequence fell
/// into one bin and the components never agreed. 0 without a branch.
double mean_visible_keys(const ModelConfig& config, std::int64_t length);
/// The most keys that a query sees in any one layer, attention layers included.
std::int64_t most_visible_keys(const ModelConfig& config, std::int64_t length);

}  // namespace hax
