#include "models/mixer.h"

#include <cmath>

#include "models/attention.h"
#include "models/mamba.h"
#include "models/mamba2.h"

namespace hax {

Init out_proj_init(const ModelConfig& config) {
  if (!config.rescale_prenorm_residual) return Init::normal(config.initializer_range);
  return Init::uniform(
      1 / std::sqrt(static_cast<double>(config.intermediate_size * config.num_hidden_layers)));
}

std::unique_ptr<Mixer> make_mixer(const ModelConfig& config, int layer, const std::string& prefix,
                                  ParamTable& table) {
  if (config.is_attention(layer)) {
    return std::make_unique<AttentionMixer>(config, layer, prefix, table);
  }
  if (config.model_type == "mamba2") {
    return std::make_unique<Mamba2Mixer>(config, layer, prefix, table);
  }
  return std::make_unique<MambaMixer>(config, layer, prefix, table);
}

}  // namespace hax
