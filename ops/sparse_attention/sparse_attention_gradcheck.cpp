#include <utility>

#include "ops/gradcheck.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
#include "ops/sparse_attention/sparse_attention.h"

namespace hax {
namespace {

constexpr std::int64_t kStates = 3, kChannels = 5;

GradCase attention_case(std::string what, const KeySet& keys, const Tensor& rows = {}) {
  const std::int64_t tokens = keys.sequences.tokens();
  const std::int64_t queries = rows.defined() ? rows.numel() : tokens;
  return {
      "sparse_attention",
      std::move(what),
      {gradcheck_tensor({queries, kStates}, 1), gradcheck_tensor({tokens, kStates}, 2),
       gradcheck_tensor({tokens, kChannels}, 3)},
      [=](std::span<const Var> in) { return sparse_attention(in[0], in[1], in[2], keys, rows); }};
}

// With uniform empty rows only V is checked: what the released code sends to Q and K from such rows
// is not the derivative of what it computes. The test of sparse_attention covers it.
GradCase uniform_case(std::string what, const KeySet& keys, const Tensor& rows = {}) {
  GradCase all = attention_case(std::move(what), keys, rows);
  const Tensor Q = all.inputs[0], K = all.inputs[1];
  return {all.op, all.what, {all.inputs[2]}, [=](std::span<const Var> in) {
            const auto like_input = [&](const Tensor& x) {
              return Var(x.to(in[0].dtype()).to(in[0].device()));
            };
            return sparse_attention(like_input(Q), like_input(K), in[0], keys, rows,
                                    EmptyRows::uniform);
          }};
}

// The keys of HAX: the two most recent of the query's bin and the two best so far.
KeySet hashed_and_selected(const Sequences& sequences) {
  const std::int64_t tokens = sequences.tokens();
  const Tensor hash = gradcheck_tensor({3, 2}, 4);
  const auto bins = [&](std::uint64_t seed) {
    return lsh_bins(gradcheck_tensor({tokens, 3}, seed), hash, sequences, LshRule::sign_bits,
                    LshCenter::causal, NormMode::causal);
  };
  return unite(lsh_keys(bins(5), bins(6), sequences, 2),
               key_selection_keys(gradcheck_tensor({tokens}, 7), sequences, 2));
}

}  // namespace

std::vector<GradCase> sparse_attention_gradchecks() {
  const auto single = Sequences::single(9);
  const auto several = Sequences::of_lengths({6, 0, 1, 9});
  const auto padded = Sequences::of_lengths({4, 0, 7}, {6, 3, 7});
  const Tensor some = Tensor::from<std::int32_t>({1, 4, 5, 6, 9, 15});
  const Tensor few = Tensor::from<std::int32_t>({0, 1, 3, 5, 10});
  return {
      attention_case("full", full_keys(single)),
      attention_case("window", window_keys(single, 3)),
      attention_case("sink and window", unite(sink_keys(several, 2), window_keys(several, 2))),
      attention_case("dilated, empty rows zero", dilated_keys(several, 3, 2)),
      attention_case("LSH and key selection", hashed_and_selected(several)),
      attention_case("LSH and key selection, some rows", hashed_and_selected(several), some),
      uniform_case("dilated, empty rows uniform over padding", dilated_keys(padded, 3, 2)),
      uniform_case("some rows, empty ones uniform", dilated_keys(padded, 3, 1), few),
  };
}

}  // namespace hax
