#include "models/sparse_mixer.h"

#include <cmath>

#include "models/rows.h"
#include "ops/elementwise/elementwise.h"
#include "ops/full_attention/full_attention.h"
#include "ops/join_rows/join_rows.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
#include "ops/matmul/matmul.h"
#include "ops/ranking_loss/ranking_loss.h"
#include "ops/reshape/reshape.h"
#include "ops/running_sum/running_sum.h"
#include "ops/select_rows/select_rows.h"
#include "ops/sparse_attention/sparse_attention.h"

namespace hax {

SparseMixer::SparseMixer(const ModelConfig& config, int layer, const std::string& prefix,
                         ParamTable& table)
    : config_(config), layer_(layer) {
  const std::int64_t state = config.state_size, inner = config.intermediate_size;
  const Init normal = Init::normal(config.initializer_range);
  xx_proj_ = table.add(prefix + ".xx_proj.weight", {2 * state, inner}, normal);
  E_ = table.add(prefix + ".E", {inner}, Init::constant(1));
  if (!config.uses("key_selection")) return;
  for (int i = 0; i < 3; ++i) {
    const std::int64_t outputs = i == 2 ? 1 : 2 * state;
    const std::string name = fmt::format("{}.dx_proj_{}", prefix, i + 1);
    score_weight_[i] = table.add(name + ".weight", {outputs, 2 * state}, normal);
    score_bias_[i] = table.add(name + ".bias", {outputs}, Init::constant(0));
  }
}

std::vector<Var> SparseMixer::projections(const Leaves& p) const {
  const std::int64_t state = config_.state_size;
  return {p[xx_proj_].rows(0, state), p[xx_proj_].rows(state, 2 * state)};
}

SparseMixer::Result SparseMixer::forward(const ForwardContext& context, const Var& u,
                                         std::span<const Var> projected, const Tensor& rows) const {
  const Scope scope("sparse");
  const Leaves& p = context.parameters;
  MixerState* carried = context.state_of(layer_);
  const Var K = scale(projected[0], 1 / std::sqrt(static_cast<double>(config_.state_size)));
  const Var Q_all = projected[1], Q = take_rows(Q_all, rows);

  KeyMemory keys{context.sequences, {}, K, u, {}, {}};
  Scores scored;
  const bool scores = config_.uses("key_selection");
  if (scores) scored = score_keys(context, Q_all.value(), K.value());
  keys.score = scored.scores;
  Tensor query_bin;
  if (config_.hashes()) {
    query_bin = bins(context, Q_all.value(), carried ? &carried->query_mean : nullptr);
    keys.key_bin = bins(context, K.value(), carried ? &carried->key_mean : nullptr);
  }
  // From here on keys and rows are those of this piece after what is left of earlier ones.
  Tensor wanted = rows;
  if (carried) {
    const KeyMemory& past = carried->keys;
    wanted = rows_after(past.sequences, context.sequences, rows);
    if (query_bin.defined() && past.key_bin.defined()) {  // past queries: any number will do
      query_bin = join_tensors(past.key_bin, past.sequences, query_bin, context.sequences);
    }
    keys.position = positions_after(context.state->seen, context.sequences);
    keys = join(past, keys);
  }

  const bool full = config_.uses("full");
  const KeySet seen = full && !carried && !context.trace ? KeySet{} : select(keys, query_bin);
  if (context.trace) {
    LayerTrace& trace = (*context.trace)[static_cast<std::size_t>(layer_)];
    trace.keys = seen;
    trace.has_keys = true;
    trace.key_score = keys.score;
  }
  const EmptyRows empty =
      config_.norm_mode == NormMode::released ? EmptyRows::uniform : EmptyRows::zero;
  const Var y = full ? full_attention(Q, keys.K, keys.V, keys.sequences, {}, wanted)
                     : sparse_attention(Q, keys.K, keys.V, seen, wanted, empty);
  if (carried) carried->keys = surviving(keys, seen);
  Result result;
  result.output = y;
  result.weight = p[E_];
  if (scores && context.training) {
    result.aux_loss = train_scores(context, scored, Q_all.value(), K.value());
  }
  return result;
}

// The scoring network: MLP(2N -> 2N -> 2N -> 1) with ReLU.
Var SparseMixer::score(const ForwardContext& context, const Var& features) const {
  const Leaves& p = context.parameters;
  const Var hidden = relu(linear(features, p[score_weight_[0]], p[score_bias_[0]]));
  const Var again = relu(linear(hidden, p[score_weight_[1]], p[score_bias_[1]]));
  return linear(again, p[score_weight_[2]], p[score_bias_[2]]);
}

// Scores of all keys, without a graph: selection is discrete, only the ranking loss trains the
// network.
SparseMixer::Scores SparseMixer::score_keys(const ForwardContext& context, const Tensor& Q,
                                            const Tensor& K) const {
  const NoGrad no_grad;
  const Scope scope("scores");
  MixerState* carried = context.state_of(layer_);
  const RunningSumResult sums = normalized_running_sum(Q, context.sequences, config_.norm_mode,
                                                       carried ? carried->query_sum : Var{});
  if (carried) carried->query_sum = sums.final_sum;
  const Tensor features = beside(K, sums.y.value());
  const Tensor scores = score(context, features).value();
  return {features, scores.reshape({scores.size(0)})};
}

// The network runs once more, with a graph, on the few candidate keys that the ranking loss
// compares.
Var SparseMixer::train_scores(const ForwardContext& context, const Scores& scored, const Tensor& Q,
                              const Tensor& K) const {
  const Scope scope("ranking");
  Candidates candidates = context.random.candidates(
      layer_, context.sequences, context.first_sequence, config_.keys_per_component());
  candidates.positions = candidates.positions.to(Q.device());
  const Tensor target =
      ranking_target(Q, K, candidates.positions, candidates.groups, context.sequences);
  if (context.trace) (*context.trace)[static_cast<std::size_t>(layer_)].rank_target = target;
  const Var scores = score(context, candidate_features(scored.features, candidates.positions,
                                                       candidates.groups, context.sequences));
  return ranking_loss(reshape(scores, {scores.size(0)}), target, candidates.groups,
                      context.sequences_in_batch);
}

Tensor SparseMixer::bins(const ForwardContext& context, const Tensor& x,
                         CarriedMean* carried) const {
  const LshRule rule = config_.uses("argmax_lsh") ? LshRule::argmax : LshRule::sign_bits;
  const Tensor hash =
      context.random.hash(layer_, config_.state_size, config_.hash_columns(), x.dtype())
          .to(x.device());
  return lsh_bins(x, hash, context.sequences, rule, config_.center(), config_.norm_mode, carried);
}

KeySet SparseMixer::select(const KeyMemory& memory, const Tensor& query_bin) const {
  const Sequences& sequences = memory.sequences;
  const std::int64_t keys = config_.keys_per_component();
  const Device device = memory.K.device();
  const auto component = [&](const std::string& name) -> KeySet {
    if (name == "full") return full_keys(sequences, device);
    if (name == "sliding_window") {
      return window_keys(sequences, keys, memory.position, device);
    }
    if (name == "sink") return sink_keys(sequences, keys, memory.position, device);
    if (name == "dilated") {
      return dilated_keys(sequences, config_.dilation(), keys, memory.position, device);
    }
    if (name == "key_selection") return key_selection_keys(memory.score, sequences, keys);
    return lsh_keys(query_bin, memory.key_bin, sequences, keys);
  };
  const std::vector<std::string> parts = config_.sparse_components();
  KeySet all = component(parts.front());
  for (std::size_t i = 1; i < parts.size(); ++i) all = unite(all, component(parts[i]));
  return all;
}

}  // namespace hax
