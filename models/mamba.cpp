#include "models/mamba.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>

#include "ops/elementwise/elementwise.h"
#include "ops/gate/gate.h"
#include "ops/matmul/matmul.h"
#include "ops/selective_scan/selective_scan.h"

namespace hax {

MambaMixer::MambaMixer(const ModelConfig& c, int layer, const std::string& prefix,
                       ParamTable& table)
    : config_(c), layer_(layer) {
  const std::int64_t hidden = c.hidden_size, inner = c.intermediate_size, state = c.state_size;
  const std::int64_t rank = c.time_step_rank;
  const Init normal = Init::normal(c.initializer_range), zero = Init::constant(0);
  // The framework that the released code builds on starts a depthwise convolution at U(-1/sqrt(W),
  // 1/sqrt(W)).
  const Init conv = Init::uniform(1 / std::sqrt(static_cast<double>(c.conv_kernel)));
  const double dt_bound = c.time_step_scale / std::sqrt(static_cast<double>(rank));
  const bool dt_constant = c.time_step_init_scheme == "constant";

  in_proj_ = table.add(prefix + ".in_proj.weight", {2 * inner, hidden}, normal);
  if (c.use_bias) in_bias_ = table.add(prefix + ".in_proj.bias", {2 * inner}, zero);
  conv_weight_ = table.add(prefix + ".conv1d.weight", {inner, 1, c.conv_kernel}, conv);
  if (c.use_conv_bias) conv_bias_ = table.add(prefix + ".conv1d.bias", {inner}, conv);
  x_proj_ = table.add(prefix + ".x_proj.weight", {rank + 2 * state, inner}, normal);
  dt_weight_ = table.add(prefix + ".dt_proj.weight", {inner, rank},
                         dt_constant ? Init::constant(dt_bound) : Init::uniform(dt_bound));
  dt_bias_ = table.add(prefix + ".dt_proj.bias", {inner},
                       Init::inverse_softplus(c.time_step_min, c.time_step_max, c.time_step_floor));
  A_log_ = table.add(prefix + ".A_log", {inner, state}, Init::log_counting());
  D_ = table.add(prefix + ".D", {inner}, Init::constant(1));
  out_proj_ = table.add(prefix + ".out_proj.weight", {hidden, inner}, out_proj_init(c));
  if (c.use_bias) out_bias_ = table.add(prefix + ".out_proj.bias", {hidden}, zero);
  if (c.sparse_arch != "none") sparse_.emplace(c, layer, prefix, table);
}

MixerResult MambaMixer::forward(const ForwardContext& context, const Rows& in,
                                const Tensor& rows) const {
  const Scope scope("mixer");
  const Leaves& p = context.parameters;
  const std::int64_t inner = config_.intermediate_size, state = config_.state_size;
  const std::int64_t rank = config_.time_step_rank;

  // in_proj, half by half: x for every token, the gate z only where somebody reads the output.
  const auto half = [&](std::int64_t begin) {
    return [&p, this, begin, inner](const Var& t) {
      const Var bias = p[in_bias_];
      return linear(t, p[in_proj_].rows(begin, begin + inner),
                    bias.defined() ? bias.rows(begin, begin + inner) : bias);
    };
  };
  const Var x = in.map(half(0)).dense();
  const Var z = in.map_at(rows, half(inner));

  MixerState* carried = context.state_of(layer_);
  const Var u = convolve(x, p[conv_weight_], p[conv_bias_], context.sequences,
                         carried ? carried->conv.data() : nullptr);

  // All products of u in one, few of whose outputs nobody reads.
  std::vector<Var> weights{p[x_proj_].rows(0, rank), p[x_proj_].rows(rank, rank + state),
                           p[x_proj_].rows(rank + state, rank + 2 * state)};
  if (sparse_) std::ranges::copy(sparse_->projections(p), std::back_inserter(weights));
  const std::vector<Var> products = linears(u, weights);
  const Var &dt_low = products[0], &B = products[1];
  const Var C = take_rows(products[2], rows);
  const Var dt = softplus(linear(dt_low, p[dt_weight_], p[dt_bias_]));
  const Var A = neg_exp(p[A_log_]);

  MixerResult result;
  const ScanResult scanned = selective_scan(u, dt, A, B, C, p[D_], context.sequences, rows,
                                            carried ? carried->ssm : Var{});
  if (carried) carried->ssm = scanned.final_state;
  Var gated;
  if (sparse_) {
    const SparseMixer::Result attended =
        sparse_->forward(context, u, std::span(products).subspan(3), rows);
    gated = gate(scanned.y, attended.output, attended.weight, z);
    result.aux_loss = attended.aux_loss;
  } else {
    gated = mul_silu(scanned.y, z);
  }
  result.output = linear(gated, p[out_proj_], p[out_bias_]);
  return result;
}

}  // namespace hax
