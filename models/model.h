// A language model: embedding, blocks x + mixer(norm(x)) [+ mlp(norm(.))], final norm, logits
// through the embedding matrix.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/config.h"
#include "models/forward.h"
#include "models/mixer.h"
#include "models/mlp.h"

namespace hax {

/// Structure and parameter declarations; the values live in a Parameters object, so that several
/// shards, precisions or copies can share one Model. Immutable after construction.
class Model {
 public:
  /// Throws UsageError when the configuration is out of range.
  explicit Model(ModelConfig config);

  /// The state before the first token of `sequences` sequences.
  ModelState initial_state(std::int64_t sequences) const {
    return {static_cast<std::int64_t>(blocks_.size()), sequences};
  }

  const ModelConfig& config() const { return config_; }
  const ParamTable& parameters() const { return table_; }

  /// tokens int32 [T] of the context's sequences -> logits of the rows wanted (undefined: all) and
  /// the auxiliary loss. Layers before the last compute every row, the last one only what is read.
  /// With context.state the tokens go on from it: whatever the pieces, the logits are those of one
  /// piece up to rounding (docs/state.md). That needs a convention that does not look ahead, and
  /// leaves out the ranking loss, which looks at whole sequences. Throws Error on tokens outside
  /// the vocabulary; the state is then as before.
  ForwardResult forward(const ForwardContext& context, const Tensor& tokens,
                        const Tensor& rows = {}) const;

 private:
  struct Block {
    ParamId norm;
    std::unique_ptr<Mixer> mixer;
    ParamId mlp_norm;  // with an MLP after the mixer: Samba, Transformer
    std::optional<SwiGluMlp> mlp;
  };
  ForwardResult run_blocks(const ForwardContext& context, const Tensor& tokens,
                           const Tensor& rows) const;
  void require_continuable(const ForwardContext& context) const;
  Var run(const ForwardContext& context, const Block& block, const Rows& hidden, const Tensor& rows,
          ForwardResult& result) const;

  ModelConfig config_;
  ParamTable table_;
  ParamId embeddings_, norm_f_;
  std::vector<Block> blocks_;
};

}  // namespace hax
