// Numeric fixtures of an independent implementation (tests/fixtures/README.md), and how hax
// compares with them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "models/model.h"

namespace hax {

/// One compared tensor.
struct FixtureError {
  std::string what;
  double error =
      0;  ///< max|a-b| / max|b|; scalars below 1e-3 absolutely; infinite when sets differ
};

struct FixtureReport {
  bool stored_as_float64 = false;
  std::vector<FixtureError> all_rows;  ///< one pack, every row computed
  std::vector<FixtureError>
      as_training;  ///< as the trainer runs it: shards, threads, rows wanted only
};

/// Builds the model of a fixture file from its metadata, runs forward and backward on its tokens,
/// hash matrices and candidates in `dtype` on `device` (float32 on CUDA), and compares logits,
/// layer outputs, losses, attended sets, scores, ranking targets and the gradient of every
/// parameter. Throws Error naming `path` when the file is not such a fixture: a tensor is missing
/// or of another type or shape than the configuration asks for, or a token or candidate is out of
/// range.
FixtureReport check_fixture(const std::string& path, DType dtype, Device device = kCpu);

/// What a fixture describes, for those who want to run it themselves. float32 or float64, on the
/// CPU.
struct FixtureStep {
  const Model& model;
  const Parameters& parameters;
  const RandomInputs& random;
  const Batch& batch;
  double gate_loss_weight;
};

/// Calls `run` with what `path` describes. Throws as check_fixture() does.
void with_fixture(const std::string& path, DType dtype,
                  const std::function<void(const FixtureStep&)>& run);

/// The largest error; NaN counts as infinite.
FixtureError worst_of(const std::vector<FixtureError>& errors);

}  // namespace hax
