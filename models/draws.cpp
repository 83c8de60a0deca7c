#include "models/draws.h"

#include "engine/check.h"

namespace hax {

std::vector<Draw> draws_of(const ModelConfig& config) {
  std::vector<Draw> draws;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (config.is_attention(layer)) continue;
    if (config.hashes()) {
      draws.push_back({.kind = Draw::Kind::hash,
                       .layer = layer,
                       .state = config.state_size,
                       .columns = config.hash_columns()});
    }
    if (config.uses("key_selection")) {
      draws.push_back(
          {.kind = Draw::Kind::candidates, .layer = layer, .keys = config.keys_per_component()});
    }
  }
  return draws;
}

Tensor PreparedInputs::hash(int layer, std::int64_t state, std::int64_t columns,
                            DType dtype) const {
  const auto found = hashes_.find(layer);
  check(found != hashes_.end() && found->second.shape() == Shape{state, columns},
        "no hash matrix of {} x {} was prepared for layer {}", state, columns, layer);
  return found->second.to(dtype);
}

Candidates PreparedInputs::candidates(int layer, const Sequences& sequences,
                                      std::int64_t first_sequence, std::int64_t) const {
  const auto found = candidates_.find({layer, first_sequence});
  check(found != candidates_.end() && found->second.groups.count() == sequences.count(),
        "no candidates of {} sequences from sequence {} on were prepared for layer {}",
        sequences.count(), first_sequence, layer);
  return found->second;
}

}  // namespace hax
