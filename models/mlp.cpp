#include "models/mlp.h"

#include "ops/elementwise/elementwise.h"
#include "ops/matmul/matmul.h"

namespace hax {

SwiGluMlp::SwiGluMlp(const ModelConfig& c, const std::string& prefix, ParamTable& table) {
  // Cut to a whole number before rounding up, as the released code does.
  const std::int64_t wanted = c.hidden_size * c.hidden_ratio * 2 / 3;
  const std::int64_t width = (wanted + 255) / 256 * 256;
  const Init normal = Init::normal(c.initializer_range);
  gate_ = table.add(prefix + ".gate_proj.weight", {width, c.hidden_size}, normal);
  up_ = table.add(prefix + ".up_proj.weight", {width, c.hidden_size}, normal);
  down_ = table.add(prefix + ".down_proj.weight", {c.hidden_size, width}, normal);
}

Var SwiGluMlp::forward(const ForwardContext& context, const Var& x) const {
  const Scope scope("mlp");
  const Leaves& p = context.parameters;
  return linear(mul_silu(linear(x, p[up_]), linear(x, p[gate_])), p[down_]);
}

}  // namespace hax
