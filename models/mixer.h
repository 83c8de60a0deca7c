// What a block mixes with: the interface of every base mixer.
#pragma once

#include <memory>
#include <string>

#include "models/config.h"
#include "models/forward.h"
#include "models/rows.h"

namespace hax {

struct MixerResult {
  Var output;    ///< [R, hidden]
  Var aux_loss;  ///< ranking loss, shape [], or undefined
};

/// Mixes along time. Immutable; parameters are declared at construction and read from the context.
class Mixer {
 public:
  virtual ~Mixer() = default;
  /// x [T, hidden] after the block's norm -> the rows wanted (undefined: all).
  virtual MixerResult forward(const ForwardContext& context, const Rows& x,
                              const Tensor& rows) const = 0;
};

/// How out_proj starts: as every projection, or, where a deep stack's residual branches shall start
/// smaller, Kaiming-uniform (a = sqrt 5) over sqrt(layers).
Init out_proj_init(const ModelConfig& config);

/// The mixer that the configuration asks for in this layer, with its parameters declared under
/// `prefix` ("backbone.layers.0.mixer").
std::unique_ptr<Mixer> make_mixer(const ModelConfig& config, int layer, const std::string& prefix,
                                  ParamTable& table);

}  // namespace hax
