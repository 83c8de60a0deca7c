// Checkpoints: folders of model.safetensors + config.json, and what a run needs to go on. See
// docs/checkpoints.md. Files hold no clock, path, host or thread count: equal runs give equal
// bytes.
#pragma once

#include <filesystem>
#include <memory>

#include "models/model.h"
#include "train/optimizer.h"

namespace hax {

/// A model with its values.
struct LoadedModel {
  std::unique_ptr<Model> model;
  std::unique_ptr<Parameters> parameters;
  std::filesystem::path folder;  ///< where config.json was found
};

/// Where a run stands after `step` optimiser steps.
struct RunState {
  std::int64_t step = 0;
  double best_accuracy = -1;  ///< of the best validation so far; -1: none yet
  std::int64_t best_step = 0;
  std::int64_t validated_step = 0;  ///< of the last finished validation
  bool operator==(const RunState&) const = default;
};

/// Writes folder/model.safetensors and folder/config.json as a whole: the folder holds either the
/// old or the new checkpoint at any moment.
void save_model(const std::filesystem::path& folder, const Model& model,
                const Parameters& parameters);
/// The same plus optimizer.safetensors and state.json.
void save_run(const std::filesystem::path& folder, const Model& model, const Parameters& parameters,
              const AdamW& optimizer, const RunState& state);

/// Loads from a checkpoint folder, a run folder (its best model, else its last) or a
/// model.safetensors file beside its config.json; its values are then on `device`. Throws Error
/// naming the first missing, surplus or misshapen tensor.
LoadedModel load_model(const std::filesystem::path& path, Device device = kCpu);
/// Loads what save_run wrote into a model's parameters and optimiser.
RunState load_run(const std::filesystem::path& folder, const Model& model, Parameters& parameters,
                  AdamW& optimizer);

/// The checkpoint folder itself, or what an interrupted replacement left of it.
std::filesystem::path existing_checkpoint(const std::filesystem::path& folder);

}  // namespace hax
