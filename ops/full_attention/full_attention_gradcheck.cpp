#include "ops/full_attention/full_attention.h"
#include "ops/gradcheck.h"

namespace hax {

std::vector<GradCase> full_attention_gradchecks() {
  const auto attention = [](const char* what, Sequences sequences, FullAttentionOptions options,
                            std::int64_t dim, std::int64_t value_dim,
                            std::vector<std::int32_t> rows = {}) {
    const std::int64_t tokens = sequences.tokens();
    const auto wanted = rows.empty() ? tokens : static_cast<std::int64_t>(rows.size());
    return GradCase{
        "full_attention",
        what,
        {gradcheck_tensor({wanted, options.heads * dim}, 1),
         gradcheck_tensor({tokens, options.kv_heads * dim}, 2),
         gradcheck_tensor({tokens, options.kv_heads * value_dim}, 3)},
        [=, index = rows.empty() ? Tensor{} : Tensor::from(rows)](std::span<const Var> in) {
          return full_attention(in[0], in[1], in[2], sequences, options, index);
        }};
  };
  return {
      attention("sequences of 5, 0, 1 and 3", Sequences({0, 5, 5, 6, 9}), {}, 3, 2),
      attention("grouped heads and a window", Sequences({0, 2, 9}),
                {.heads = 4, .kv_heads = 2, .scale = 0.6, .window = 3}, 2, 3),
      attention("rows wanted", Sequences({0, 4, 10}), {.heads = 2, .kv_heads = 1, .scale = -0.5}, 3,
                2, {1, 2, 5, 9}),
      // More keys than a tile has, for few queries.
      attention("several key tiles", Sequences::single(70), {.window = 67}, 1, 1, {3, 63, 66, 69}),
  };
}

}  // namespace hax
