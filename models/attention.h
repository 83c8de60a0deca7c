// Multi-head causal attention with rotary embeddings, grouped key/value heads and an optional
// window: Samba's attention layers and all of a Transformer's.
#pragma once

#include "models/mixer.h"

namespace hax {

class AttentionMixer final : public Mixer {
 public:
  /// Declares the mixer's parameters under `prefix` ("backbone.layers.1.mixer").
  AttentionMixer(const ModelConfig& config, int layer, const std::string& prefix,
                 ParamTable& table);

  MixerResult forward(const ForwardContext& context, const Rows& x,
                      const Tensor& rows) const override;

 private:
  AttentionConfig config_;
  int layer_;
  ParamId q_, k_, v_, q_bias_, k_bias_, v_bias_, o_;
  std::int64_t head_dim_;
};

}  // namespace hax
