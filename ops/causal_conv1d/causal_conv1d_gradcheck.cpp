#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/gradcheck.h"

namespace hax {

std::vector<GradCase> causal_conv1d_gradchecks() {
  const auto run = [](Sequences sequences, Activation activation) {
    return [=](std::span<const Var> in) {
      return causal_conv1d(in[0], in[1], in.size() == 3 ? in[2] : Var(), sequences, activation);
    };
  };
  const auto inputs = [](std::int64_t tokens, std::int64_t channels, std::int64_t width,
                         std::uint64_t seed) {
    return std::vector<Tensor>{gradcheck_tensor({tokens, channels}, seed),
                               gradcheck_tensor({channels, 1, width}, seed + 1),
                               gradcheck_tensor({channels}, seed + 2)};
  };
  std::vector<Tensor> without_bias = inputs(6, 3, 4, 20);
  without_bias.pop_back();
  const Sequences pack = Sequences::of_lengths({5, 0, 2, 4});
  return {
      {"causal_conv1d", "four sequences", inputs(11, 3, 4, 1), run(pack, Activation::silu)},
      {"causal_conv1d", "no activation", inputs(11, 3, 4, 5), run(pack, Activation::none)},
      {"causal_conv1d", "one tap", inputs(4, 2, 1, 10),
       run(Sequences::single(4), Activation::silu)},
      {"causal_conv1d", "wider than the sequence", inputs(3, 2, 7, 15),
       run(Sequences::single(3), Activation::silu)},
      {"causal_conv1d", "no bias", without_bias, run(Sequences::single(6), Activation::silu)},
  };
}

}  // namespace hax
