// Settings of a training run: one table drives the flags of `hax train`, recipe files and the run
// folder's recipe.json.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "models/config.h"

namespace hax {

/// Defaults are the released script's, where it has them.
struct TrainOptions {
  // Model
  std::string base_arch = "mamba";
  std::string sparse_arch;  // "" here, 0 and "" below: what the configuration says
  std::string config;       // JSON file instead of base_arch
  std::int64_t sparse_keys = 0;
  std::int64_t num_hash = 0;
  std::int64_t data_max_length = 0;
  std::string norm_mode;
  std::string lsh_center;
  // Task, when samples are streamed
  std::string contexts;  // a:b, "" for the default of the task
  std::string keys;
  std::int64_t values = 16;
  std::int64_t levels = 2;
  // Data and folders
  std::string data_dir;  // "" to stream
  std::string save_dir;
  std::int64_t valid_samples = 0;  // 0: 1,440 when streaming, the whole file otherwise
  std::int64_t test_samples = 0;
  // Optimisation
  double lr = 2e-3;
  double gate_loss_weight = 0.1;
  std::int64_t step = 400000;
  std::int64_t warmup_step = 5000;
  std::int64_t valid_step = 500;
  std::int64_t bsz = 64;
  std::int64_t grad_acc = 1;
  double clip_norm = 0;  // 0: no clipping
  double weight_decay = 0.01;
  double beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8;
  std::int64_t seed = 0;
  std::int64_t log_step = 50;
  std::int64_t shards = 8;
  // Machine
  std::string device = "cpu";
  std::int64_t threads = 0;  // 0: one a core
  std::string graph = "on";  // on CUDA: on or off

  /// Throws UsageError naming the first value out of range.
  void validate() const;
  /// The model these options ask for; `vocab_needed` widens the default vocabulary when the task
  /// has more tokens.
  ModelConfig model_config(std::int64_t vocab_needed) const;
};

/// Throws UsageError naming the first setting of those `given` by a flag that changes nothing in
/// this model: a mistake of the flag or of the architecture.
void refuse_idle_settings(std::span<const std::string> given, const ModelConfig& model);

/// One setting: its name is the flag (--name) and the recipe key.
struct OptionSpec {
  const char* name;
  std::string help;
  std::variant<std::int64_t TrainOptions::*, double TrainOptions::*, std::string TrainOptions::*>
      member;
  std::int64_t least = 0, most = INT64_MAX;  ///< of an integer
};
std::span<const OptionSpec> option_specs();

/// Reads a recipe over `options`; unknown keys and wrong types are refused by name. `source` is
/// named in errors.
void apply_recipe(std::string_view json, std::string_view source, TrainOptions& options);
/// The recipe text of all options, keys sorted.
std::string to_json(const TrainOptions& options);

/// The text of the recipe called `name` (a file of train/recipes/ compiled in) or of a file at that
/// path. Throws UsageError when there is neither.
std::string find_recipe(const std::string& name);

}  // namespace hax
