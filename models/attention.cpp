#include "models/attention.h"

#include <cmath>

#include "ops/full_attention/full_attention.h"
#include "ops/matmul/matmul.h"
#include "ops/rotary/rotary.h"

namespace hax {

AttentionMixer::AttentionMixer(const ModelConfig& c, int layer, const std::string& prefix,
                               ParamTable& table)
    : config_(*c.attn), layer_(layer), head_dim_(c.hidden_size / c.attn->num_heads) {
  const std::int64_t hidden = c.hidden_size, kv = config_.num_kv_heads * head_dim_;
  const Init normal = Init::normal(c.initializer_range), zero = Init::constant(0);
  const auto projection = [&](const char* name, std::int64_t width, ParamId& weight,
                              ParamId& bias) {
    weight = table.add(fmt::format("{}.{}.weight", prefix, name), {width, hidden}, normal);
    if (config_.qkv_bias) bias = table.add(fmt::format("{}.{}.bias", prefix, name), {width}, zero);
  };
  projection("q_proj", hidden, q_, q_bias_);
  projection("k_proj", kv, k_, k_bias_);
  projection("v_proj", kv, v_, v_bias_);
  o_ = table.add(prefix + ".o_proj.weight", {hidden, hidden}, normal);
}

MixerResult AttentionMixer::forward(const ForwardContext& context, const Rows& in,
                                    const Tensor& rows) const {
  const Scope scope("mixer");
  const Leaves& p = context.parameters;
  const auto project = [&p](ParamId weight, ParamId bias) {
    return [&p, weight, bias](const Var& x) { return linear(x, p[weight], p[bias]); };
  };
  MixerState* carried = context.state_of(layer_);
  const std::vector<std::int64_t> first =
      carried ? context.state->seen : std::vector<std::int64_t>{};
  const double theta = config_.rope_theta;
  const Var Q = rotary(in.map_at(rows, project(q_, q_bias_)), context.sequences, config_.num_heads,
                       theta, first, rows);
  const Var K = rotary(in.map(project(k_, k_bias_)).dense(), context.sequences,
                       config_.num_kv_heads, theta, first);
  const Var V = in.map(project(v_, v_bias_)).dense();
  const FullAttentionOptions options{.heads = config_.num_heads,
                                     .kv_heads = config_.num_kv_heads,
                                     .scale = 1 / std::sqrt(static_cast<double>(head_dim_)),
                                     .window = config_.window_size};
  if (!carried) {
    return {linear(full_attention(Q, K, V, context.sequences, options, rows), p[o_]), {}};
  }
  // No positions: K is turned already, and a window goes by what lies between.
  const KeyMemory all = join(carried->keys, {context.sequences, {}, K, V, {}, {}});
  const Tensor present = rows_after(carried->keys.sequences, context.sequences, rows);
  const Var y = full_attention(Q, all.K, all.V, all.sequences, options, present);
  carried->keys =
      surviving(all, config_.window_size ? window_keys(all.sequences, *config_.window_size)
                                         : full_keys(all.sequences));
  return {linear(y, p[o_]), {}};
}

}  // namespace hax
