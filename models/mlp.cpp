#include "models/mlp.h"

#include "ops/elementwise/elementwise.h"
#include "ops/matmul/matmul.h"

namespace hax {

SwiGluMlp::SwiGluMlp(const ModelConfig& c, const std::string& prefix, ParamTable& table) {
  const std::int64_t width = c.mlp_width();
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
