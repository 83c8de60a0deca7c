// The Mamba2 mixer (Dao and Gu, 2024), with an optional sparse attention branch.
#pragma once

#include <optional>

#include "models/mixer.h"
#include "models/sparse_mixer.h"

namespace hax {

class Mamba2Mixer final : public Mixer {
 public:
  /// Declares the mixer's parameters under `prefix` ("backbone.layers.0.mixer").
  Mamba2Mixer(const ModelConfig& config, int layer, const std::string& prefix, ParamTable& table);

  MixerResult forward(const ForwardContext& context, const Rows& x,
                      const Tensor& rows) const override;

 private:
  ModelConfig config_;
  int layer_;
  ParamId in_proj_, in_bias_, conv_weight_, conv_bias_, dt_bias_, A_log_, D_, norm_;
  ParamId out_proj_, out_bias_;
  std::optional<SparseMixer> sparse_;
};

}  // namespace hax
