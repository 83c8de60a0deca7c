// The Mamba mixer (Gu and Dao, 2023), with an optional sparse attention branch.
#pragma once

#include <optional>

#include "models/config.h"
#include "models/forward.h"
#include "models/rows.h"
#include "models/sparse_mixer.h"

namespace hax {

class MambaMixer {
 public:
  /// Declares the mixer's parameters under `prefix` ("backbone.layers.0.mixer").
  MambaMixer(const ModelConfig& config, int layer, const std::string& prefix, ParamTable& table);

  struct Result {
    Var output;    ///< [R, hidden]
    Var aux_loss;  ///< shape [] or undefined
  };
  /// x [T, hidden] after the block's norm -> the rows wanted.
  Result forward(const ForwardContext& context, const Rows& x, const Tensor& rows) const;

 private:
  ModelConfig config_;
  ParamId in_proj_, in_bias_, conv_weight_, conv_bias_, x_proj_, dt_weight_, dt_bias_;
  ParamId A_log_, D_, out_proj_, out_bias_;
  std::optional<SparseMixer> sparse_;
};

}  // namespace hax
