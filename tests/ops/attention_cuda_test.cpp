// Both attentions on CUDA beside the CPU's: sizes that fill no tile, warp or block, packs with
// short and empty sequences, rows wanted, bfloat16.
#include <doctest/doctest.h>

#include "ops/full_attention/full_attention.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
#include "ops/sparse_attention/sparse_attention.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr double kBound = 1e-5;
// Inputs, outputs and gradients are rounded to 8 bits once each, arithmetic is float32.
constexpr double kBfloat16Bound = 1.5e-2;

struct Inputs {
  Tensor Q, K, V, dy, rows;  // float64
};

Inputs random_inputs(std::int64_t tokens, std::int64_t query_width, std::int64_t key_width,
                     std::int64_t value_width, std::int64_t y_width, const Tensor& rows) {
  const std::int64_t queries = rows.defined() ? rows.numel() : tokens;
  return {random_tensor({queries, query_width}, 1), random_tensor({tokens, key_width}, 2),
          random_tensor({tokens, value_width}, 3), random_tensor({queries, y_width}, 4), rows};
}

using Results = std::vector<Tensor>;  // y, dQ, dK, dV

// attention(Q, K, V, rows) and its gradients.
template <class F>
Results results_of(const Inputs& in, DType dtype, Device device, F attention) {
  const auto leaf = [&](const Tensor& x) { return Var::leaf(x.to(dtype).to(device)); };
  const Var Q = leaf(in.Q), K = leaf(in.K), V = leaf(in.V);
  const Var y = attention(Q, K, V, in.rows);
  backward(y, in.dy.to(dtype).to(device));
  return {y.value().to(kCpu), Q.grad().to(kCpu), K.grad().to(kCpu), V.grad().to(kCpu)};
}

// The bf16 results are compared to the CPU's float32 ones of the same rounded inputs.
template <class F>
void compare_with_cpu(Inputs in, F attention, bool bfloat16 = false) {
  const DType dtype = bfloat16 ? DType::bfloat16 : DType::float32;
  for (Tensor* x : {&in.Q, &in.K, &in.V, &in.dy}) *x = x->to(dtype).to(DType::float32);
  const Results cpu = results_of(in, DType::float32, kCpu, attention);
  const Results cuda = results_of(in, dtype, kCuda, attention);
  const Results again = results_of(in, dtype, kCuda, attention);
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    INFO("y, dQ, dK, dV: " << i);
    CHECK(relative_error(cuda[i], cpu[i]) <= (bfloat16 ? kBfloat16Bound : kBound));
    CHECK(same_bits(cuda[i], again[i]));
  }
}

Tensor every(std::int32_t step, std::int64_t tokens) {
  std::vector<std::int32_t> rows;
  for (std::int32_t t = 1; t < tokens; t += step) rows.push_back(t);
  return Tensor::from(rows);
}

KeySet hax_keys(const Sequences& sequences, std::int64_t keys) {
  const Tensor hash = random_tensor({4, 3}, 9);
  const auto bins = [&](std::uint64_t seed) {
    return lsh_bins(random_tensor({sequences.tokens(), 4}, seed), hash, sequences,
                    LshRule::sign_bits, LshCenter::causal, NormMode::causal);
  };
  return unite(lsh_keys(bins(5), bins(6), sequences, keys),
               key_selection_keys(random_tensor({sequences.tokens()}, 7), sequences, keys));
}

const std::vector<Sequences>& packs() {
  static const std::vector<Sequences> all{
      Sequences::single(0), Sequences::single(1), Sequences::single(130),
      Sequences::of_lengths({0, 6, 1, 40, 0, 63}, {4, 9, 1, 64, 0, 70})};
  return all;
}

}  // namespace

TEST_CASE("sparse_attention on CUDA equals the CPU") {
  if constexpr (!kHasCuda) return;
  const auto compare = [](const KeySet& keys, std::int64_t states, std::int64_t channels,
                          const Tensor& rows, EmptyRows empty = EmptyRows::zero,
                          bool bfloat16 = false) {
    const std::int64_t tokens = keys.sequences.tokens();
    INFO(keys.sequences.count() << " sequences of " << tokens << " tokens, " << states << " x "
                                << channels << (rows.defined() ? ", some rows" : ""));
    compare_with_cpu(
        random_inputs(tokens, states, states, channels, channels, rows),
        [&](const Var& Q, const Var& K, const Var& V, const Tensor& wanted) {
          return sparse_attention(Q, K, V, keys, wanted, empty);
        },
        bfloat16);
  };
  for (const Sequences& pack : packs()) {
    const Tensor some = every(3, pack.tokens());
    compare(full_keys(pack), 5, 7, {});
    compare(unite(sink_keys(pack, 2), window_keys(pack, 4)), 16, 32, some);
    compare(dilated_keys(pack, 5, 2), 3, 2, {}, EmptyRows::uniform);
    compare(dilated_keys(pack, 1000, 2), 3, 2, some, EmptyRows::uniform);
    compare(hax_keys(pack, 5), 16, 33, {});
    compare(hax_keys(pack, 2), 1, 1, every(7, pack.tokens()));
  }
  // Rows of 16-byte pieces; several tiles of keys; blocks with the rows of several sequences.
  const Sequences wide = Sequences::of_lengths({150, 3, 217});
  compare(hax_keys(wide, 20), 16, 128, {});
  compare(hax_keys(wide, 4), 20, 64, every(2, wide.tokens()));
  compare(full_keys(wide), 64, 8, {});
  const Sequences pack = packs().back();
  compare(hax_keys(pack, 5), 4, 8, Tensor::from(std::vector<std::int32_t>{}));
  compare(hax_keys(pack, 5), 130, 150, {});  // more columns than a block takes
  compare(hax_keys(pack, 5), 16, 32, {}, EmptyRows::uniform, true);
  // Long ones, whose keys are gathered.
  const Sequences two = Sequences::of_lengths({1900, 211});
  compare(hax_keys(two, 3), 3, 5, every(5, two.tokens()), EmptyRows::uniform);
  compare(key_selection_keys(random_tensor({1100}, 7), Sequences::single(1100), 3), 2, 3,
          every(9, 1100));
}

TEST_CASE("full_attention on CUDA equals the CPU") {
  if constexpr (!kHasCuda) return;
  const auto compare = [](const Sequences& pack, const FullAttentionOptions& options,
                          std::int64_t dim, std::int64_t value_dim, const Tensor& rows,
                          bool bfloat16 = false) {
    INFO(pack.count() << " sequences of " << pack.tokens() << " tokens, " << options.heads
                      << " heads of " << dim << " x " << value_dim);
    compare_with_cpu(
        random_inputs(pack.tokens(), options.heads * dim, options.kv_heads * dim,
                      options.kv_heads * value_dim, options.heads * value_dim, rows),
        [&](const Var& Q, const Var& K, const Var& V, const Tensor& wanted) {
          return full_attention(Q, K, V, pack, options, wanted);
        },
        bfloat16);
  };
  for (const Sequences& pack : packs()) {
    compare(pack, {}, 5, 3, {});
    compare(pack, {.window = 1}, 2, 2, {});
    compare(pack, {.heads = 4, .kv_heads = 2, .scale = 0.3, .window = 37}, 8, 16,
            every(3, pack.tokens()));
  }
  compare(Sequences::of_lengths({90, 200}), {.heads = 4, .kv_heads = 4, .window = 64}, 8, 8, {});
  compare(Sequences::single(1100), {.window = 70}, 4, 4, every(13, 1100));
  const Sequences pack = packs().back();
  compare(pack, {}, 4, 8, Tensor::from(std::vector<std::int32_t>{}));
  compare(pack, {.heads = 2, .kv_heads = 1, .scale = 0.1}, 131, 140, {});
  compare(pack, {.heads = 2, .kv_heads = 2, .scale = 0.5}, 16, 32, {}, true);
}
