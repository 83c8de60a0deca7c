#include "tools/bench/op_cases.h"

#include <cmath>
#include <utility>

#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "ops/embedding/embedding.h"
#include "ops/full_attention/full_attention.h"
#include "ops/matmul/matmul.h"
#include "ops/ranking_loss/ranking_loss.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rotary/rotary.h"
#include "ops/running_sum/running_sum.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/sparse_attention/sparse_attention.h"
#include "ops/ssd/ssd.h"
#include "tools/bench/inputs.h"

namespace hax::bench {
namespace {

constexpr std::int64_t kHidden = 64, kInner = 128, kState = 16, kVocabulary = 100;
constexpr std::int64_t kState2 = 32, kHeads2 = 8;  // Mamba2
constexpr std::int64_t kSambaHidden = 32, kSambaHeads = 4, kWindow = 64;
constexpr double D = kHidden, E = kInner, N = kState, V = kVocabulary;

using Vars = std::span<const Var>;

// `numbers` read and written in each direction, a row.
OpInstance instance(std::vector<Tensor> inputs, std::function<Var(Vars)> run, std::int64_t rows,
                    Work forward, Work backward, double forward_numbers, double backward_numbers) {
  forward.numbers = forward_numbers;
  backward.numbers = backward_numbers;
  const auto count = static_cast<double>(rows);
  return {std::move(inputs), std::move(run), count, count * forward, count * backward};
}

// One whose result has no gradient.
OpInstance forward_only(std::vector<Tensor> inputs, std::function<Var(Vars)> run, std::int64_t rows,
                        Work forward, double numbers) {
  OpInstance made = instance(std::move(inputs), std::move(run), rows, forward, {}, numbers, 0);
  made.differentiable = false;
  return made;
}

// A function of rows [T, width], and of [width] more where `second` says so.
OpCase row_case(std::string name, std::int64_t width, std::function<Var(Vars)> run, Work forward,
                Work backward) {
  return {std::move(name), [=](const Sequences& one, std::int64_t, std::uint64_t seed) {
            const auto w = static_cast<double>(width);
            return instance({random_tensor({one.tokens(), width}, seed)}, run, one.tokens(),
                            forward, backward, 2 * w, 3 * w);
          }};
}

OpCase linear_case(std::string name, std::int64_t inputs, std::int64_t outputs) {
  return {std::move(name), [=](const Sequences& one, std::int64_t, std::uint64_t seed) {
            const auto i = static_cast<double>(inputs), o = static_cast<double>(outputs);
            const OpWork work = linear_work("", i, o);
            return instance(
                {random_tensor({one.tokens(), inputs}, seed),
                 random_tensor({outputs, inputs}, seed + 1, 1 / std::sqrt(i))},
                [](Vars v) { return linear(v[0], v[1]); }, one.tokens(), work.forward,
                work.backward, i + o, 2 * i + o);
          }};
}

OpInstance norm_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const OpWork work = norm_work(D);
  return instance(
      {random_tensor({one.tokens(), kHidden}, seed), Tensor::full({kHidden}, 1)},
      [](Vars v) { return rms_norm(v[0], v[1]); }, one.tokens(), work.forward, work.backward, 2 * D,
      3 * D);
}

OpInstance conv_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const OpWork work = conv_work(E);
  return instance(
      {random_tensor({one.tokens(), kInner}, seed), random_tensor({kInner, 1, 4}, seed + 1, .3),
       random_tensor({kInner}, seed + 2)},
      [one](Vars v) { return causal_conv1d(v[0], v[1], v[2], one); }, one.tokens(), work.forward,
      work.backward, 2 * E, 3 * E);
}

// Time steps as a fresh model has them, log-uniform between 1e-3 and 0.1.
Tensor time_steps(Shape shape, std::uint64_t seed) {
  Tensor dt = Tensor::empty(shape);
  fill_uniform(dt, {.seed = seed}, std::log(1e-3), std::log(.1));
  float* value = dt.data<float>();
  for (std::int64_t i = 0; i < dt.numel(); ++i) value[i] = std::exp(value[i]);
  return dt;
}

OpInstance scan_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const std::int64_t T = one.tokens();
  const OpWork state = scan_state_work(E, N), output = scan_output_work(E, N);
  Tensor A = Tensor::empty({kInner, kState});
  for (std::int64_t i = 0; i < A.numel(); ++i) {
    A.data<float>()[i] = -static_cast<float>(i % kState + 1);
  }
  return instance(
      {random_tensor({T, kInner}, seed), time_steps({T, kInner}, seed + 1), A,
       random_tensor({T, kState}, seed + 2), random_tensor({T, kState}, seed + 3),
       Tensor::full({kInner}, 1)},
      [one](Vars v) { return selective_scan(v[0], v[1], v[2], v[3], v[4], v[5], one).y; }, T,
      state.forward + output.forward, state.backward + output.backward, 3 * E + 2 * N,
      5 * E + 4 * N);
}

OpInstance ssd_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const std::int64_t T = one.tokens();
  constexpr double heads = kHeads2, states = kState2;
  const OpWork state = ssd_state_work(E, states, heads), output = ssd_output_work(E, states);
  Tensor A = Tensor::empty({kHeads2});
  for (std::int64_t h = 0; h < kHeads2; ++h) A.data<float>()[h] = -static_cast<float>(h + 1);
  return instance(
      {random_tensor({T, kInner}, seed), time_steps({T, kHeads2}, seed + 1), A,
       random_tensor({T, kState2}, seed + 2), random_tensor({T, kState2}, seed + 3),
       Tensor::full({kHeads2}, 1)},
      [one](Vars v) { return ssd(v[0], v[1], v[2], v[3], v[4], v[5], one, {.heads = kHeads2}).y; },
      T, state.forward + output.forward, state.backward + output.backward,
      2 * E + 2 * states + heads, 3 * E + 4 * states + 2 * heads);
}

// What a key costs in the backward when y is not computed again: scores, dp, dV, dQ and dK.
Work attention_backward(double keys, double states, double values, double heads) {
  return {.other = keys * (6 * states + 4 * values), .exps = keys * heads};
}

OpInstance sparse_attention_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const std::int64_t T = one.tokens();
  const Tensor Q = random_tensor({T, kState}, seed), K = random_tensor({T, kState}, seed + 1, .25);
  const KeySet keys = hax_keys(Q, K, random_tensor({T}, seed + 2), one);
  const double seen = count_pairs(keys) / static_cast<double>(T);
  return instance(
      {Q, K, random_tensor({T, kInner}, seed + 3)},
      [keys](Vars v) { return sparse_attention(v[0], v[1], v[2], keys); }, T,
      attention_work(seen, N, E).forward, attention_backward(seen, N, E, 1), 2 * N + 2 * E,
      4 * N + 4 * E);
}

OpInstance window_attention_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const std::int64_t T = one.tokens();
  constexpr double width = kSambaHidden, heads = kSambaHeads;
  const double seen = count_pairs(window_keys(one, kWindow)) / static_cast<double>(T);
  const FullAttentionOptions options{.heads = kSambaHeads,
                                     .kv_heads = kSambaHeads,
                                     .scale = 1 / std::sqrt(width / heads),
                                     .window = kWindow};
  const Shape shape{T, kSambaHidden};
  return instance(
      {random_tensor(shape, seed), random_tensor(shape, seed + 1), random_tensor(shape, seed + 2)},
      [one, options](Vars v) { return full_attention(v[0], v[1], v[2], one, options); }, T,
      attention_work(seen, width, width, heads).forward,
      attention_backward(seen, width, width, heads), 4 * width, 8 * width);
}

OpInstance gate_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const Shape shape{one.tokens(), kInner};
  return instance(
      {random_tensor(shape, seed), random_tensor(shape, seed + 1)},
      [](Vars v) { return mul_silu(v[0], v[1]); }, one.tokens(), {.other = 6 * E, .exps = E},
      {.other = 12 * E, .exps = E}, 3 * E, 5 * E);
}

OpInstance rotary_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  constexpr double width = kSambaHidden;
  return instance(
      {random_tensor({one.tokens(), kSambaHidden}, seed)},
      [one](Vars v) { return rotary(v[0], one, kSambaHeads); }, one.tokens(), {.other = 3 * width},
      {.other = 3 * width}, 2 * width, 2 * width);
}

OpInstance embedding_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const std::int64_t T = one.tokens();
  Tensor index = Tensor::empty({T}, DType::int32);
  RandomStream stream({.seed = seed});
  for (std::int64_t t = 0; t < T; ++t) {
    index.data<std::int32_t>()[t] = static_cast<std::int32_t>(stream.below(kVocabulary));
  }
  return instance(
      {random_tensor({kVocabulary, kHidden}, seed)},
      [index](Vars v) { return embedding(v[0], index); }, T, {}, {.other = D}, 2 * D, D);
}

OpInstance loss_instance(const Sequences&, std::int64_t targets, std::uint64_t seed) {
  Tensor labels = Tensor::empty({targets}, DType::int32);
  RandomStream stream({.seed = seed});
  for (std::int64_t r = 0; r < targets; ++r) {
    labels.data<std::int32_t>()[r] = static_cast<std::int32_t>(stream.below(kVocabulary));
  }
  return instance(
      {random_tensor({targets, kVocabulary}, seed)},
      [labels](Vars v) { return cross_entropy(v[0], labels, 7056); }, targets,
      {.other = 3 * V, .exps = V}, {.other = 3 * V, .exps = V}, V, 2 * V);
}

OpInstance running_sum_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  return forward_only(
      {random_tensor({one.tokens(), kState}, seed)},
      [one](Vars v) {
        return Var(normalized_running_sum(v[0].detach(), one, NormMode::causal).y.value());
      },
      one.tokens(), {.other = 4 * N}, 2 * N);
}

OpInstance ranking_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  const std::int64_t T = one.tokens(), count = std::min<std::int64_t>(32, T);
  std::vector<std::int32_t> positions;
  for (std::int64_t c = 0; c < count; ++c) {
    positions.push_back(static_cast<std::int32_t>(c * T / count));
  }
  // A candidate's queries are those after it.
  const auto seen = static_cast<double>(count) / 2;
  return forward_only(
      {random_tensor({T, kState}, seed), random_tensor({T, kState}, seed + 1, .25)},
      [one, candidates = Tensor::from(positions), groups = Sequences::single(count)](Vars v) {
        return Var(ranking_target(v[0].value(), v[1].value(), candidates, groups, one));
      },
      T, {.other = seen * (2 * N + 2), .exps = seen}, 2 * N);
}

OpInstance bins_instance(const Sequences& one, std::int64_t, std::uint64_t seed) {
  return forward_only(
      {random_tensor({one.tokens(), kState}, seed), random_tensor({kState, 8}, seed + 1)},
      [one](Vars v) {
        return Var(lsh_bins(v[0].value(), v[1].value(), one, LshRule::sign_bits, LshCenter::causal,
                            NormMode::causal));
      },
      one.tokens(), {.products = 2 * N * 8, .other = 3 * N + 15}, N + 2);
}

}  // namespace

std::vector<OpCase> op_cases() {
  return {
      {"embedding, 64 of 100", embedding_instance},
      {"rms_norm 64", norm_instance},
      linear_case("linear 64 to 256 (in_proj)", kHidden, 2 * kInner),
      linear_case("linear 128 to 40 (x_proj)", kInner, 40),
      linear_case("linear 128 to 64 (out_proj)", kInner, kHidden),
      {"causal_conv1d 128, silu", conv_instance},
      row_case("softplus 128", kInner, [](Vars v) { return softplus(v[0]); },
               {.other = 4 * E, .exps = 2 * E}, {.other = 6 * E, .exps = 2 * E}),
      {"selective_scan 128, 16 states", scan_instance},
      {"ssd 8 x 16, 32 states", ssd_instance},
      {"sparse_attention, HAX's 64 keys", sparse_attention_instance},
      {"full_attention 4 x 8, window 64", window_attention_instance},
      {"rotary 4 x 8", rotary_instance},
      {"mul_silu 128 (gate)", gate_instance},
      {"cross_entropy 100, a target", loss_instance},
      {"normalized_running_sum 16", running_sum_instance},
      {"ranking_target, 32 candidates", ranking_instance},
      {"lsh_bins 16, 8 signs", bins_instance},
  };
}

}  // namespace hax::bench
