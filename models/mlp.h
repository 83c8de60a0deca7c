// The SwiGLU feed-forward layer (Shazeer, 2020): down( silu(gate(x)) up(x) ).
#pragma once

#include <string>

#include "models/config.h"
#include "models/forward.h"

namespace hax {

class SwiGluMlp {
 public:
  /// Declares the layer's parameters under `prefix` ("backbone.layers.0.mlp"), for the width that
  /// the configuration's mlp_width() tells.
  SwiGluMlp(const ModelConfig& config, const std::string& prefix, ParamTable& table);

  /// x [R, hidden] -> [R, hidden], row by row.
  Var forward(const ForwardContext& context, const Var& x) const;

 private:
  ParamId gate_, up_, down_;
};

}  // namespace hax
