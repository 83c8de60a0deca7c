// The Mamba mixer (Gu and Dao, 2023), with an optional sparse attention branch.
#pragma once

#include <optional>

#include "models/mixer.h"
#include "models/sparse_mixer.h"

namespace hax {

class MambaMixer final : public Mixer {
 public:
  /// Declares the mixer's parameters under `prefix` ("backbone.layers.0.mixer").
  MambaMixer(const ModelConfig& config, int layer, const std::string& prefix, ParamTable& table);

  MixerResult forward(const ForwardContext& context, const Rows& x,
                      const Tensor& rows) const override;

 private:
  ModelConfig config_;
  int layer_;
  ParamId in_proj_, in_bias_, conv_weight_, conv_bias_, x_proj_, dt_weight_, dt_bias_;
  ParamId A_log_, D_, out_proj_, out_bias_;
  std::optional<SparseMixer> sparse_;
};

}  // namespace hax
