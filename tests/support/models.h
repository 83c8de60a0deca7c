// Small models and batches for tests.
#pragma once

#include <string>
#include <vector>

#include "data/batch.h"
#include "data/joint_recall.h"
#include "models/model.h"

namespace hax::test {

/// A two-layer Mamba of hidden size 24 with 8 sparse keys.
ModelConfig small_config(const std::string& sparse_arch);
/// The same for another base: mamba, mamba2 (4 heads, chunks of 8), samba (second layer attention
/// in a window of 8) or transformer (both layers attention, all of it).
ModelConfig small_config(const std::string& base_arch, const std::string& sparse_arch);

struct NamedConfig {
  std::string name;
  ModelConfig config;
};
/// Every base with every sparse branch it takes.
std::vector<NamedConfig> all_small_configs();

/// A model with values, and joint recall samples that fit it.
struct TestModel {
  TestModel(ModelConfig config, DType dtype, std::uint64_t seed);

  /// `count` samples of the small task.
  Batch batch(std::int64_t count) const;
  /// Logits of an evaluation pass, all rows or the rows wanted.
  Tensor logits(const Sequences& sequences, const Tensor& tokens, const Tensor& rows = {}) const;

  JointRecallTask task;
  Model model;
  Parameters parameters;
};

}  // namespace hax::test
