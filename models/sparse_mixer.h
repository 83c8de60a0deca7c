// The sparse attention branch that any base mixer can carry (paper, section 4.3): base x selector
// is a product.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/forward.h"

namespace hax {

class SparseMixer {
 public:
  /// Declares the branch's parameters under `prefix` ("backbone.layers.0.mixer").
  SparseMixer(const ModelConfig& config, int layer, const std::string& prefix, ParamTable& table);

  struct Result {
    Var output;    ///< attention output [R, inner]
    Var weight;    ///< E [inner]: the output's weight for each channel
    Var aux_loss;  ///< shape [], undefined unless key selection is trained
  };
  /// The weights of K and Q, both [N, inner]: their products with u are what forward() takes, so
  /// that the base mixer can run all products of u together.
  std::vector<Var> projections(const Leaves& p) const;
  /// u [T, inner]: the base mixer's activation after the convolution; the source of Q and K, and V
  /// itself. projected: u times each of projections(), [T, N].
  Result forward(const ForwardContext& context, const Var& u, std::span<const Var> projected,
                 const Tensor& rows) const;

 private:
  struct Scores {
    Tensor features;  // [T, 2N]: K beside the normalised running sum of Q
    Tensor scores;    // [T]
  };
  Var score(const ForwardContext& context, const Var& features) const;
  Scores score_keys(const ForwardContext& context, const Tensor& Q, const Tensor& K) const;
  Var train_scores(const ForwardContext& context, const Scores& scored, const Tensor& Q,
                   const Tensor& K) const;
  Tensor bins(const ForwardContext& context, const Tensor& x, CarriedMean* carried) const;
  KeySet select(const KeyMemory& keys, const Tensor& query_bin) const;

  ModelConfig config_;
  int layer_;
  ParamId xx_proj_, E_;
  ParamId score_weight_[3], score_bias_[3];
};

}  // namespace hax
