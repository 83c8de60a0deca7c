#include "tests/support/models.h"

#include "data/sample_source.h"
#include "models/architectures.h"

namespace hax::test {

ModelConfig small_config(const std::string& sparse_arch) {
  return small_config("mamba", sparse_arch);
}

ModelConfig small_config(const std::string& base_arch, const std::string& sparse_arch) {
  ModelConfig config = named_config(base_arch, sparse_arch);
  config.vocab_size = 48;
  config.hidden_size = 24;
  config.intermediate_size = 48;
  config.state_size = 8;
  config.time_step_rank = 4;
  config.num_heads = 4;
  config.head_dim = 12;
  config.chunk_size = 8;
  config.sparse_keys = 8;
  config.num_hash = 4;  // few bins: short sequences must find keys
  config.data_max_length = 64;
  if (config.attn) config.attn->num_kv_heads = 2;
  if (config.model_type == "samba") {
    config.num_hidden_layers = 2;
    config.attn->layers = {1};
    config.attn->window_size = 8;
    config.initializer_range = 0.1;
  }
  return config;
}

std::vector<NamedConfig> all_small_configs() {
  std::vector<NamedConfig> configs;
  for (const char* base : {"mamba", "mamba2", "samba"}) {
    for (const std::string& sparse : sparse_arch_names()) {
      configs.push_back({fmt::format("{} + {}", base, sparse), small_config(base, sparse)});
    }
  }
  configs.push_back({"transformer", small_config("transformer", "none")});
  return configs;
}

TestModel::TestModel(ModelConfig config, DType dtype, std::uint64_t seed)
    : task(make_task(2, Range{2, 4}, Range{2, 4}, 8)),
      model(std::move(config)),
      parameters(model.parameters(), dtype) {
  parameters.initialize(seed);
}

Batch TestModel::batch(std::int64_t count) const {
  return read_batch(StreamSource(task, 1, Split::train), 0, count);
}

Tensor TestModel::logits(const Sequences& sequences, const Tensor& tokens,
                         const Tensor& rows) const {
  const NoGrad no_grad;
  const Leaves leaves(parameters);
  const DrawnInputs random(17, 3);
  return model
      .forward({.parameters = leaves, .random = random, .sequences = sequences, .training = false},
               tokens, rows)
      .logits.value();
}

}  // namespace hax::test
