#include "models/mamba2.h"

#include <cmath>

#include "ops/elementwise/elementwise.h"
#include "ops/gate/gate.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/ssd/ssd.h"

namespace hax {

Mamba2Mixer::Mamba2Mixer(const ModelConfig& c, int layer, const std::string& prefix,
                         ParamTable& table)
    : config_(c), layer_(layer) {
  const std::int64_t hidden = c.hidden_size, inner = c.intermediate_size, heads = c.num_heads;
  const std::int64_t mixed =
      inner + 2 * c.n_groups * c.state_size;  // x, B and C: what is convolved
  const Init normal = Init::normal(c.initializer_range), zero = Init::constant(0);

  in_proj_ = table.add(prefix + ".in_proj.weight", {inner + mixed + heads, hidden}, normal);
  if (c.use_bias) in_bias_ = table.add(prefix + ".in_proj.bias", {inner + mixed + heads}, zero);
  conv_weight_ = table.add(prefix + ".conv1d.weight", {mixed, 1, c.conv_kernel}, normal);
  if (c.use_conv_bias) conv_bias_ = table.add(prefix + ".conv1d.bias", {mixed}, zero);
  dt_bias_ = table.add(prefix + ".dt_bias", {heads},
                       Init::inverse_softplus(c.time_step_min, c.time_step_max, c.time_step_floor));
  A_log_ = table.add(prefix + ".A_log", {heads}, Init::log_counting());
  D_ = table.add(prefix + ".D", {heads}, Init::constant(1));
  norm_ = table.add(prefix + ".norm.weight", {inner}, Init::constant(1));
  out_proj_ = table.add(prefix + ".out_proj.weight", {hidden, inner}, out_proj_init(c));
  if (c.use_bias) out_bias_ = table.add(prefix + ".out_proj.bias", {hidden}, zero);
  if (c.sparse_arch != "none") sparse_.emplace(c, layer, prefix, table);
}

MixerResult Mamba2Mixer::forward(const ForwardContext& context, const Rows& in,
                                 const Tensor& rows) const {
  const Scope scope("mixer");
  const Leaves& p = context.parameters;
  const std::int64_t inner = config_.intermediate_size, heads = config_.num_heads;
  const std::int64_t states = config_.n_groups * config_.state_size;

  // in_proj gives (z, x, B, C, dt), each by its own rows of the weight.
  const auto part = [&](std::int64_t begin, std::int64_t count) {
    return [&p, this, begin, count](const Var& t) {
      const Var bias = p[in_bias_];
      return linear(t, p[in_proj_].rows(begin, begin + count),
                    bias.defined() ? bias.rows(begin, begin + count) : bias);
    };
  };
  // The convolution is depthwise: x, B and C go through their own channels of it.
  MixerState* carried = context.state_of(layer_);
  const auto convolved = [&](std::size_t tail, std::int64_t begin, std::int64_t count) {
    const Var bias = p[conv_bias_];
    return convolve(in.map(part(inner + begin, count)).dense(),
                    p[conv_weight_].rows(begin, begin + count),
                    bias.defined() ? bias.rows(begin, begin + count) : bias, context.sequences,
                    carried ? &carried->conv[tail] : nullptr);
  };
  const Var z = in.map_at(rows, part(0, inner));
  const Var u = convolved(0, 0, inner);
  const Var B = convolved(1, inner, states);
  const Var C = take_rows(convolved(2, inner + states, states), rows);
  const Var dt_raw = in.map(part(2 * inner + 2 * states, heads)).dense();
  Var dt = softplus(add(dt_raw, p[dt_bias_]));
  if (config_.limits_time_step()) {
    dt = clamp(dt, config_.time_step_limit_low, config_.time_step_limit_high);
  }

  MixerResult result;
  const SsdOptions options{heads, config_.n_groups, config_.chunk_size};
  const SsdResult scanned = ssd(u, dt, neg_exp(p[A_log_]), B, C, p[D_], context.sequences, options,
                                rows, carried ? carried->ssm : Var{});
  if (carried) carried->ssm = scanned.final_state;
  Var gated;
  if (sparse_) {
    const SparseMixer::Result attended =
        sparse_->forward(context, u, linears(u, sparse_->projections(p)), rows);
    gated = gate(scanned.y, attended.output, attended.weight, z);
    result.aux_loss = attended.aux_loss;
  } else {
    gated = mul_silu(scanned.y, z);
  }
  // Gate first, then the norm over all inner channels, whatever the number of groups.
  const Var normed = rms_norm(gated, p[norm_], config_.layer_norm_epsilon);
  result.output = linear(normed, p[out_proj_], p[out_bias_]);
  return result;
}

}  // namespace hax
