#include "models/model.h"

#include <utility>

#include "ops/elementwise/elementwise.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"

namespace hax {

Model::Model(ModelConfig config) : config_(std::move(config)) {
  config_.resolve();
  embeddings_ = table_.add("backbone.embeddings.weight", {config_.vocab_size, config_.hidden_size},
                           Init::normal(config_.initializer_range));
  const auto norm = [&](std::string name) {
    return table_.add(std::move(name), {config_.hidden_size}, Init::constant(1));
  };
  for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("backbone.layers.{}", layer);
    Block& block = blocks_.emplace_back();
    block.norm = norm(prefix + (config_.has_mlp() ? ".mixer_norm.weight" : ".norm.weight"));
    block.mixer = make_mixer(config_, layer, prefix + ".mixer", table_);
    if (!config_.has_mlp()) continue;
    block.mlp_norm = norm(prefix + ".mlp_norm.weight");
    block.mlp.emplace(config_, prefix + ".mlp", table_);
  }
  norm_f_ = table_.add("backbone.norm_f.weight", {config_.hidden_size}, Init::constant(1));
}

// One block at the rows wanted; its ranking loss is added to the result's.
Var Model::run(const ForwardContext& context, const Block& block, const Rows& hidden,
               const Tensor& rows, ForwardResult& result) const {
  const Leaves& p = context.parameters;
  const auto normed = [&](ParamId weight) {
    return [&p, this, weight](const Var& x) {
      return rms_norm(x, p[weight], config_.layer_norm_epsilon);
    };
  };
  const MixerResult mixed = block.mixer->forward(context, hidden.map(normed(block.norm)), rows);
  const Var residual = hidden.map_at(rows, [](const Var& x) { return x; });
  Var output = add(residual, mixed.output);
  if (block.mlp) {
    output = add(output, block.mlp->forward(context, normed(block.mlp_norm)(output)));
  }
  if (mixed.aux_loss.defined()) {
    result.aux_loss =
        result.aux_loss.defined() ? add(result.aux_loss, mixed.aux_loss) : mixed.aux_loss;
  }
  return output;
}

void Model::require_continuable(const ForwardContext& context) const {
  const ModelState& state = *context.state;
  check(state.layers.size() == blocks_.size(),
        "model: the state has {} layers, expected the model's {}", state.layers.size(),
        blocks_.size());
  check(std::cmp_equal(state.seen.size(), context.sequences.count()),
        "model: the state is of {} sequences, the pack has {}", state.seen.size(),
        context.sequences.count());
  check(config_.sparse_arch == "none" || config_.norm_mode == NormMode::causal,
        "model: norm_mode released looks at whole sequences and can't go on from a state; use "
        "causal");
  check(!config_.hashes() || config_.center() != LshCenter::sequence,
        "model: lsh_center sequence looks at whole sequences and can't go on from a state; use "
        "causal or none");
  check(!context.training || !config_.uses("key_selection"),
        "model: the ranking loss looks at whole sequences and can't go on from a state; run with "
        "training = false");
}

ForwardResult Model::forward(const ForwardContext& context, const Tensor& tokens,
                             const Tensor& rows) const {
  context.sequences.require_tokens("model", tokens.numel());
  if (context.state == nullptr) {  // else the host still counts with them
    return run_blocks(context, tokens, to_device(rows, context.parameters.device()));
  }

  require_continuable(context);
  ModelState next = *context.state;  // so that an error leaves the caller's as it was
  ForwardContext inner = context;
  inner.state = &next;
  ForwardResult result = run_blocks(inner, tokens, rows);
  for (std::size_t s = 0; s < next.seen.size(); ++s) {
    next.seen[s] += context.sequences.length(static_cast<std::int64_t>(s));
  }
  *context.state = std::move(next);
  return result;
}

ForwardResult Model::run_blocks(const ForwardContext& context, const Tensor& tokens,
                                const Tensor& rows) const {
  const Scope backbone("backbone");
  const Leaves& p = context.parameters;
  if (context.trace) context.trace->assign(blocks_.size(), {});

  ForwardResult result;
  Rows hidden = embed_tokens(p[embeddings_], tokens);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Scope scope(fmt::format("layers.{}", layer));
    const Tensor wanted = layer + 1 == blocks_.size() ? rows : Tensor{};
    hidden = run(context, blocks_[layer], hidden, wanted, result);
    if (context.trace) (*context.trace)[layer].output = hidden.dense().value();
  }
  const Var normed = rms_norm(hidden.dense(), p[norm_f_], config_.layer_norm_epsilon);
  result.logits = matmul(normed, p[embeddings_], false, true);
  return result;
}

}  // namespace hax
