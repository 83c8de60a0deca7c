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
  for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("backbone.layers.{}", layer);
    const ParamId norm =
        table_.add(prefix + ".norm.weight", {config_.hidden_size}, Init::constant(1));
    blocks_.push_back({norm, MambaMixer(config_, layer, prefix + ".mixer", table_)});
  }
  norm_f_ = table_.add("backbone.norm_f.weight", {config_.hidden_size}, Init::constant(1));
}

ForwardResult Model::forward(const ForwardContext& context, const Tensor& tokens,
                             const Tensor& rows) const {
  const Scope backbone("backbone");
  const Leaves& p = context.parameters;
  const double eps = config_.layer_norm_epsilon;
  context.sequences.require_tokens("model", tokens.numel());
  if (context.trace) context.trace->assign(blocks_.size(), {});

  ForwardResult result;
  Rows hidden = embed_tokens(p[embeddings_], tokens);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Scope scope(fmt::format("layers.{}", layer));
    const Block& block = blocks_[layer];
    const Tensor wanted = layer + 1 == blocks_.size() ? rows : Tensor{};
    const Rows normed = hidden.map([&](const Var& x) { return rms_norm(x, p[block.norm], eps); });
    const MambaMixer::Result mixed = block.mixer.forward(context, normed, wanted);
    const Var residual = hidden.map_at(wanted, [](const Var& x) { return x; });
    hidden = add(residual, mixed.output);
    if (mixed.aux_loss.defined()) {
      result.aux_loss =
          result.aux_loss.defined() ? add(result.aux_loss, mixed.aux_loss) : mixed.aux_loss;
    }
    if (context.trace) (*context.trace)[layer].output = hidden.dense().value();
  }
  result.logits = matmul(rms_norm(hidden.dense(), p[norm_f_], eps), p[embeddings_], false, true);
  return result;
}

}  // namespace hax
