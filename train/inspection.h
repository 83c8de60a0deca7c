// One training step of a model on a few samples, looked at from inside: every op as it was
// recorded, the gradients that flow back through it, what attention looks at and how long states
// remember. Page: docs/inspect.md
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "models/model.h"

namespace hax {

/// Numbers of a tensor, in double. NaN and infinite ones are counted and otherwise left out.
struct NumberStats {
  std::int64_t count = 0, zeros = 0, nan = 0, infinite = 0;
  double min = 0, max = 0, mean = 0;
  double std = 0;                       ///< of all numbers, not of a sample of them
  double norm = 0;                      ///< square root of the sum of squares
  std::vector<std::int64_t> histogram;  ///< kHistogramBins equal bins from min to max

  static constexpr int kHistogramBins = 24;
};
/// Of a floating-point or integer tensor on any device.
NumberStats stats_of(const Tensor& tensor);

struct InspectedTensor {
  Shape shape;
  DType dtype = DType::float32;
  NumberStats value;
  std::optional<NumberStats> gradient;  ///< none: the loss does not depend on it

  std::int64_t bytes() const { return shape.numel() * size_of(dtype); }
};

/// What an op read: the output of an earlier op, a parameter (or rows of one), or a constant.
struct InspectedInput {
  int op = -1, output = 0;  ///< op: index in Inspection::ops; -1: not from an op
  std::string parameter;    ///< "" when it is not one
  Shape shape;
  double gradient_norm = -1;  ///< of what the op sent back to it; -1: nothing
};

struct InspectedOp {
  std::string op, scope;  ///< "rms_norm", "backbone.layers.0"
  bool recorded = false;  ///< false: computed without a gradient
  std::vector<InspectedInput> inputs;
  std::vector<InspectedTensor> outputs;
  double forward_s = 0;     ///< since the op before it ended
  double backward_s = -1;   ///< likewise; -1: no gradient came here
  int backward_order = -1;  ///< 0: the first of the backward pass
};

struct InspectedParameter {
  std::string name;
  InspectedTensor tensor;
  /// Norm of what the first step of AdamW would change, over the norm of the parameter; infinite
  /// for a parameter of zeros.
  double update_ratio = 0;
};

/// A key of a query, and its share of the query's attention, averaged over heads.
struct AttendedKey {
  std::int32_t key = 0;
  float weight = 0;
};

/// Attention of one layer in one sample. Queries beyond kMostTokens are left out.
struct AttentionPicture {
  int layer = 0;
  std::int64_t sample = 0;
  std::string op;                                 ///< "sparse_attention" or "full_attention"
  std::vector<std::vector<AttendedKey>> queries;  ///< keys that a query may see, ascending
  std::vector<std::int64_t> query_bin, key_bin;   ///< LSH; else empty
  std::vector<double> key_score;                  ///< key selection; else empty
};

/// Memory of one layer's state in one sample. Tokens beyond kMostTokens are left out.
struct MemoryPicture {
  int layer = 0;
  std::int64_t sample = 0;
  std::string op;                                  ///< "selective_scan" or "ssd"
  std::vector<double> dt_least, dt_mean, dt_most;  ///< of each token, over channels or heads
  std::vector<double> state_norm;                  ///< |h_t|_2, all channels and states together
  /// kept[t][d]: what is left at token t of what token t - d wrote, the product of the decays in
  /// between, averaged over channels and states; cut where it falls below 1/1000.
  std::vector<std::vector<float>> kept;
};

struct InspectedTarget {
  std::int64_t sample = 0, position = 0;  ///< of the input whose next token is asked for
  std::int32_t label = 0, predicted = 0;
  double probability = 0;    ///< of the label
  std::int64_t answer = -1;  ///< position of the key in the table; -1: not known
};

struct Inspection {
  static constexpr std::int64_t kMostTokens = 512;

  ModelConfig config;
  double lm_loss = 0, gate_loss = 0, loss = 0, accuracy = 0;
  double gate_loss_weight = 0, lr = 0;
  std::vector<InspectedOp> ops;
  std::vector<InspectedParameter> parameters;
  std::vector<AttentionPicture> attention;
  std::vector<MemoryPicture> memory;
  std::vector<InspectedTarget> targets;
  std::vector<std::vector<std::int32_t>> samples;  ///< input tokens of each
  std::vector<std::int64_t> padded;                ///< the length each would be padded to
};

struct InspectionInput {
  const Model& model;
  const Parameters& parameters;
  const RandomInputs& random;
  const Batch& batch;
  double gate_loss_weight = 0.1;
  double lr = 2e-3;  ///< of the update whose ratio is shown
};

/// Runs the batch as one pack, every row computed, forward and backward, on the CPU. Throws Error
/// as Model::forward does, and when the batch has no token to predict.
Inspection inspect_step(const InspectionInput& input);

}  // namespace hax
