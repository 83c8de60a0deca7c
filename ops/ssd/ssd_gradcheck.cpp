#include <cmath>

#include "ops/gradcheck.h"
#include "ops/ssd/ssd.h"

namespace hax {
namespace {

struct Sizes {
  std::int64_t heads, head_dim, state, groups, rows;
};

// x, dt > 0, A < 0, B, C, D, initial_state.
std::vector<Tensor> inputs(const Sizes& size, const Sequences& pack, std::uint64_t seed) {
  const std::int64_t tokens = pack.tokens(), width = size.groups * size.state;
  std::vector<Tensor> in{
      gradcheck_tensor({tokens, size.heads * size.head_dim}, seed),
      gradcheck_tensor({tokens, size.heads}, seed + 1),
      gradcheck_tensor({size.heads}, seed + 2),
      gradcheck_tensor({tokens, width}, seed + 3),
      gradcheck_tensor({size.rows, width}, seed + 4),
      gradcheck_tensor({size.heads}, seed + 5),
      gradcheck_tensor({pack.count(), size.heads, size.head_dim, size.state}, seed + 6)};
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = 0.1 + std::abs(dt) / 2;
  }
  for (std::int64_t h = 0; h < size.heads; ++h) {
    double& A = in[2].data<double>()[h];
    A = -0.1 - std::abs(A);
  }
  return in;
}

// Both tensors, one after the other.
Var join(const Var& a, const Var& b) {
  const Tensor at = a.value(), bt = b.value();
  Tensor joined = Tensor::empty({at.numel() + bt.numel()}, at.dtype(), at.device());
  Tensor first = joined.flat(0, at.numel()), second = joined.flat(at.numel(), joined.numel());
  copy(first, at.reshape(first.shape()));
  copy(second, bt.reshape(second.shape()));
  const auto gradient = [split = at.numel(), shape_a = at.shape(),
                         shape_b = bt.shape()](const Tensor& dy) {
    return Grads{dy.flat(0, split).reshape(shape_a), dy.flat(split, dy.numel()).reshape(shape_b)};
  };
  return record("join", joined, {a, b}, gradient);
}

}  // namespace

std::vector<GradCase> ssd_gradchecks() {
  const auto both = [](Sequences pack, SsdOptions options, std::vector<std::int32_t> wanted = {}) {
    const Tensor rows = wanted.empty() ? Tensor{} : Tensor::from(wanted);
    return [=](std::span<const Var> in) {
      const SsdResult r = ssd(in[0], in[1], in[2], in[3], in[4], in[5], pack, options, rows, in[6]);
      return join(r.y, r.final_state);
    };
  };
  const Sequences pack = Sequences::of_lengths({4, 0, 18, 1});
  const Sizes grouped{4, 2, 3, 2, 23}, sparse{2, 3, 2, 1, 5}, one{1, 1, 1, 1, 5};
  const Sequences five = Sequences::single(5);
  const std::vector<Tensor> stateless = inputs({2, 2, 3, 1, 5}, five, 40);
  return {
      {"ssd", "four sequences, two groups", inputs(grouped, pack, 1),
       both(pack, {.heads = 4, .groups = 2})},
      {"ssd", "chunks of three", inputs(grouped, pack, 10),
       both(pack, {.heads = 4, .groups = 2, .chunk = 3})},
      {"ssd", "some rows", inputs(sparse, pack, 20),
       both(pack, {.heads = 2, .groups = 1}, {0, 5, 6, 20, 22})},
      {"ssd", "one of everything", inputs(one, five, 30), both(five, {.heads = 1, .chunk = 1})},
      {"ssd", "y alone, from zero", std::vector<Tensor>(stateless.begin(), stateless.end() - 1),
       [=](std::span<const Var> in) {
         return ssd(in[0], in[1], in[2], in[3], in[4], in[5], five, {.heads = 2}).y;
       }},
      {"ssd", "final state alone", stateless,
       [=](std::span<const Var> in) {
         return ssd(in[0], in[1], in[2], in[3], in[4], in[5], five, {.heads = 2}, {}, in[6])
             .final_state;
       }},
  };
}

}  // namespace hax
