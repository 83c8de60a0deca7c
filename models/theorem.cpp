#include "models/theorem.h"

#include <algorithm>
#include <bit>

#include "engine/random.h"
#include "models/rows.h"
#include "ops/elementwise/elementwise.h"
#include "ops/matmul/matmul.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/sparse_attention/sparse_attention.h"

namespace hax {
namespace {

TheoremOptions checked(const TheoremOptions& options) {
  check(1 <= options.hash_bits && options.hash_bits <= 62,
        "theorem: {} hash bits, expected 1 to 62", options.hash_bits);
  const std::int64_t least = options.look_back == LookBack::window_and_sink ? 2 : 1;
  check(options.keys >= least, "theorem: {} keys, expected at least {}", options.keys, least);
  check(options.dilation >= 1, "theorem: the dilation is {}, expected at least 1",
        options.dilation);
  check(options.center != LshCenter::sequence,
        "theorem: centring on the sequence looks ahead, expected none or causal");
  return options;
}

// Row r, column s: the sign (-1)^(number of the bits `signs_s` that are set in bin_r), times
// `factor`. Two bins agree in all columns when equal, else in about half of them.
Tensor sign_features(const Tensor& bins, const Tensor& signs, float factor) {
  Tensor features = Tensor::empty({bins.numel(), signs.numel()});
  float* out = features.data<float>();
  for (const std::int64_t bin : bins.values<std::int64_t>()) {
    for (const std::int64_t bits : signs.values<std::int64_t>()) {
      *out++ = std::popcount(static_cast<std::uint64_t>(bin & bits)) % 2 == 0 ? factor : -factor;
    }
  }
  return features;
}

}  // namespace

TheoremModel::TheoremModel(const RecallTokens& tokens, const TheoremOptions& options)
    : options_(checked(options)),
      channels_(tokens),
      weights_(tokens, channels_, options.hash_bits, options.seed) {
  if (options.look_back != LookBack::fixed_state) return;
  // The second scan writes at value tokens only: dt as in the first, from the value's indicator.
  const auto step = static_cast<float>(TheoremWeights::kStep);
  write_bias_ = Tensor::full({channels_.value_width()}, -step);
  write_weight_ = Tensor::zeros({channels_.value_width(), channels_.count});
  for (std::int64_t v = 0; v < channels_.value_width(); ++v) {
    write_weight_.data<float>()[v * channels_.count + channels_.classes + channels_.levels()] =
        2 * step;
  }
  signs_ = Tensor::empty({options.keys}, DType::int64);
  RandomStream stream({.seed = options.seed, .layer = 1, .purpose = Purpose::hash});
  for (std::int64_t s = 0; s < options.keys; ++s) {
    const std::uint64_t low = stream.next(), high = stream.next();
    signs_.data<std::int64_t>()[s] = static_cast<std::int64_t>(low | high << 32);
  }
}

Tensor TheoremModel::forward(const Tensor& tokens, const Tensor& rows, State& state,
                             Trace* trace) const {
  const NoGrad no_grad;
  const Var y = overwrite(tokens, state);
  const auto look_back = [&]() -> Var {
    if (options_.look_back == LookBack::nothing) {
      return linear(take_rows(y, rows), weights_.W_V);
    }
    return options_.look_back == LookBack::fixed_state ? read_fixed_state(y, rows, state)
                                                       : attend(y, rows, state, trace);
  };
  const Var found = look_back();
  state.seen += tokens.numel();
  return linear(found, weights_.values).value();
}

Var TheoremModel::overwrite(const Tensor& tokens, State& state) const {
  const NoGrad no_grad;
  const std::int64_t classes = channels_.class_count();
  // u is the embedding itself: what depends on a token alone is computed once for each.
  const Rows u = embed_tokens(weights_.embedding, tokens);
  const auto project = [&](std::int64_t begin, std::int64_t end) {
    return [this, begin, end](const Var& x) { return linear(x, weights_.x_proj.rows(begin, end)); };
  };
  const Var dt =
      u.map([&](const Var& x) {
         return softplus(linear(project(0, classes)(x), weights_.dt_weight, weights_.dt_bias));
       }).dense();
  const Var B = u.map(project(classes, classes + 1)).dense();
  const Var C = u.map(project(classes + 1, classes + 2)).dense();
  const ScanResult scanned =
      selective_scan(u.dense(), dt, neg_exp(weights_.A_log), B, C, weights_.D,
                     Sequences::single(tokens.numel()), {}, state.scan);
  state.scan = scanned.final_state.value();
  return scanned.y;
}

Tensor TheoremModel::bins_of(const Var& x, CarriedMean& mean) const {
  return lsh_bins(x.value(), weights_.hash, Sequences::single(x.size(0)), LshRule::sign_bits,
                  options_.center, NormMode::causal, &mean);
}

Var TheoremModel::queries(const Var& y) const { return linear(y, weights_.W_Q, weights_.b_Q); }

// Of the queries Q at the rows wanted.
Tensor TheoremModel::query_bins(const Var& y, const Var& Q, const Tensor& rows,
                                State& state) const {
  if (options_.center == LshCenter::none) return bins_of(Q, state.query_mean);
  // A mean over queries needs them all.
  const Tensor all = bins_of(queries(y), state.query_mean);
  Tensor wanted = Tensor::empty(rows.shape(), DType::int64);
  std::int64_t* out = wanted.data<std::int64_t>();
  for (const std::int32_t row : rows.values<std::int32_t>()) {
    *out++ = all.data<std::int64_t>()[row];
  }
  return wanted;
}

KeySet TheoremModel::select(const KeyMemory& memory, const Tensor& query_bin,
                            const Tensor& rows) const {
  const Sequences& sequences = memory.sequences;
  const std::int64_t keys = options_.keys;
  switch (options_.look_back) {
    case LookBack::window:
      return window_keys(sequences, keys, memory.position);
    case LookBack::dilated:
      return dilated_keys(sequences, options_.dilation, keys, memory.position);
    case LookBack::window_and_sink:
      return unite(window_keys(sequences, keys - keys / 2, memory.position),
                   sink_keys(sequences, keys / 2, memory.position));
    default:
      break;
  }
  // Only the rows wanted are ever asked for.
  Tensor bins = Tensor::zeros(memory.key_bin.shape(), DType::int64);
  for (std::int64_t r = 0; r < rows.numel(); ++r) {
    bins.data<std::int64_t>()[rows.data<std::int32_t>()[r]] = query_bin.data<std::int64_t>()[r];
  }
  return lsh_keys(bins, memory.key_bin, sequences, keys);
}

Var TheoremModel::attend(const Var& y, const Tensor& rows, State& state, Trace* trace) const {
  const Scope scope("attention");
  const Sequences present = Sequences::single(y.size(0));
  KeyMemory piece{.sequences = present,
                  .position = positions_after({state.seen}, present),
                  .K = linear(y, weights_.W_K),
                  .V = linear(y, weights_.W_V),
                  .score = {},
                  .key_bin = {}};
  const Var Q = queries(take_rows(y, rows));
  Tensor query_bin;
  if (options_.look_back == LookBack::lsh) {
    piece.key_bin = bins_of(piece.K, state.key_mean);
    query_bin = query_bins(y, Q, rows, state);
  }
  const Tensor here = rows_after(Sequences::single(state.keys.rows()), present, rows);
  state.keys.append(piece);
  const KeyMemory memory = state.keys.view();
  const KeySet keys = select(memory, query_bin, here);
  const Var found = sparse_attention(Q, memory.K, memory.V, keys, here);
  if (trace != nullptr) {
    KeySet seen = keys;  // its bins are a view of the memory, whose rows may move below
    if (seen.key_bin.defined()) seen.key_bin = seen.key_bin.clone();
    *trace = {.key_bin = piece.key_bin,
              .query_bin = query_bin,
              .keys = seen,
              .position = memory.position.clone(),
              .rows = here};
  }
  // Moving what is left costs as much as a copy, so it waits until it frees a quarter.
  const Tensor needed = surviving_rows(keys);
  if (4 * needed.numel() <= 3 * state.keys.rows()) state.keys.keep(needed);
  return found;
}

// Linear attention as a selective scan: state [v, s] is the sum of v over the values so far, each
// with the sign that its bin has for s.
Var TheoremModel::read_fixed_state(const Var& y, const Tensor& rows, State& state) const {
  const Scope scope("fixed_state");
  const std::int64_t width = channels_.value_width(), states = options_.keys;
  const auto step = static_cast<float>(TheoremWeights::kStep);
  const Var dt = softplus(linear(y, write_weight_, write_bias_));
  const Tensor B =
      sign_features(bins_of(linear(y, weights_.W_K), state.key_mean), signs_, 1 / step);
  const Tensor C = sign_features(query_bins(y, queries(take_rows(y, rows)), rows, state), signs_,
                                 1 / static_cast<float>(states));
  const Tensor A = Tensor::zeros({width, states});  // forgets nothing
  const ScanResult scanned =
      selective_scan(linear(y, weights_.W_V), dt, A, B, C, Tensor::zeros({width}),
                     Sequences::single(y.size(0)), rows, state.fixed);
  state.fixed = scanned.final_state.value();
  return scanned.y;
}

Tensor argmax_rows(const Tensor& x) {
  Tensor best = Tensor::empty({x.size(0)}, DType::int32);
  for (std::int64_t r = 0; r < x.size(0); ++r) {
    const float* row = x.data<float>() + r * x.size(1);
    best.data<std::int32_t>()[r] =
        static_cast<std::int32_t>(std::max_element(row, row + x.size(1)) - row);
  }
  return best;
}

}  // namespace hax
