#include "models/costs.h"

#include <algorithm>

#include "engine/check.h"

namespace hax {
namespace {

void require_length(std::int64_t length) {
  constexpr std::int64_t kLongest = std::int64_t{1} << 30;
  check_usage(length >= 1 && length <= kLongest, "length is {}, expected an integer from 1 to {}",
              length, kLongest);
}

// Attention layers: sizes that both costs need.
std::int64_t head_size(const ModelConfig& c) { return c.hidden_size / c.attn->num_heads; }
std::int64_t kv_width(const ModelConfig& c) { return c.attn->num_kv_heads * head_size(c); }

// What goes through the convolution: x in Mamba, x, B and C in Mamba2.
std::int64_t convolved_width(const ModelConfig& c) {
  const bool all = c.model_type == "mamba2";
  return c.intermediate_size + (all ? 2 * c.n_groups * c.state_size : 0);
}

// Keys of one component to remember after `length` tokens.
std::int64_t remembered_keys(const ModelConfig& c, const std::string& component,
                             std::int64_t length) {
  const std::int64_t keys = c.keys_per_component();
  if (component == "full") return length;
  if (component == "sliding_window") return std::min(length, keys - 1);
  if (component == "dilated") return std::min(length / c.dilation(), keys);
  if (component == "sink" || component == "key_selection") return std::min(length, keys);
  // Of 2^h bins no more than `length` can be in use.
  const std::int64_t h = c.hash_columns();
  const bool signs = component == "sign_bin_lsh";
  const std::int64_t bins = signs && h >= 31 ? length : signs ? std::int64_t{1} << h : h;
  return std::min(length, keys * std::min(bins, length));
}

std::int64_t remembered_keys(const ModelConfig& c, std::int64_t length) {
  std::int64_t keys = 0;
  for (const std::string& component : c.sparse_components()) {
    keys += remembered_keys(c, component, length);
  }
  return std::min(keys, length);
}

// The sum over n = 1..length of min(floor(n / dilation), keys): how many keys the queries of a
// sequence see together, if these are every dilation-th position, of them the latest `keys`. A
// window is the case of dilation 1.
double visible_sum(std::int64_t length, std::int64_t dilation, std::int64_t keys) {
  const std::int64_t full = std::min(length / dilation, keys);
  return static_cast<double>(dilation * (full * (full - 1) / 2)) +
         static_cast<double>(full * (length - full * dilation + 1));
}

}  // namespace

StateNumbers state_terms(const ModelConfig& c, std::int64_t length) {
  require_length(length);
  const bool hashing = c.hashes(), scoring = c.uses("key_selection");
  check_usage(c.sparse_arch == "none" || c.norm_mode == NormMode::causal,
              "norm_mode is released, expected causal: it looks at whole sequences, there is no "
              "state to carry");
  check_usage(!hashing || c.center() != LshCenter::sequence,
              "lsh_center is sequence, expected causal or none: it looks at whole sequences, there "
              "is no state to carry");
  const std::int64_t inner = c.intermediate_size, state = c.state_size;
  StateNumbers of_scan;  // one layer with a scan
  of_scan.convolution = std::min(length, c.conv_kernel - 1) * convolved_width(c);
  of_scan.scan = inner * state;
  of_scan.keys =
      remembered_keys(c, length) * (state + inner + 1 + (scoring ? 1 : 0) + (hashing ? 1 : 0));
  of_scan.running_sums =
      (hashing && c.center() == LshCenter::causal ? 2 * state : 0) + (scoring ? state : 0);

  StateNumbers all;
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    if (c.is_attention(layer)) {
      const std::int64_t window = c.attn->window_size.value_or(length + 1);
      all.attention += std::min(length, window - 1) * 2 * kv_width(c);
    } else {
      all.convolution += of_scan.convolution;
      all.scan += of_scan.scan;
      all.keys += of_scan.keys;
      all.running_sums += of_scan.running_sums;
    }
  }
  return all;
}

std::int64_t state_numbers(const ModelConfig& config, std::int64_t length) {
  return state_terms(config, length).total();
}

double mean_visible_keys(const ModelConfig& c, std::int64_t length) {
  require_length(length);
  const std::int64_t keys = c.keys_per_component();
  double sum = 0;
  if (c.sparse_arch == "none") return 0;
  if (c.uses("full")) {
    sum = visible_sum(length, 1, length);
  } else if (!c.uses("dilated")) {
    // Components of k keys each: a window beside a sink, or what hashing and scores find at most.
    sum = visible_sum(length, 1, keys * static_cast<std::int64_t>(c.sparse_components().size()));
  } else {
    const std::int64_t dilation = c.dilation();
    sum = visible_sum(length, dilation, keys);
    if (c.uses("sliding_window")) {
      // Less the dilated keys inside the window: those up to a query, but not up to the position
      // that the window begins after.
      const std::int64_t before = std::max<std::int64_t>(length - keys, 0);
      const double inside =
          visible_sum(length, dilation, length) - visible_sum(before, dilation, before);
      sum += visible_sum(length, 1, keys) - inside;
    }
  }
  return sum / static_cast<double>(length);
}

std::int64_t most_visible_keys(const ModelConfig& c, std::int64_t length) {
  require_length(length);
  std::int64_t most = 0;
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    if (c.is_attention(layer)) most = c.attn->window_size.value_or(length);
  }
  std::int64_t branch = 0;
  for (const std::string& component : c.sparse_components()) {
    branch += component == "full"      ? length
              : component == "dilated" ? std::min(length / c.dilation(), c.keys_per_component())
                                       : c.keys_per_component();
  }
  return std::min(length, std::max(most, branch));
}

TokenFlops flop_terms(const ModelConfig& c, std::int64_t length) {
  const auto hidden = static_cast<double>(c.hidden_size);
  const auto inner = static_cast<double>(c.intermediate_size);
  const auto state = static_cast<double>(c.state_size);
  const double keys = mean_visible_keys(c, length);

  TokenFlops of_scan;  // one layer with a scan
  if (c.model_type == "mamba2") {
    const auto mixed = static_cast<double>(convolved_width(c));
    of_scan.projections =
        2 * hidden * (inner + mixed + static_cast<double>(c.num_heads)) + 2 * inner * hidden;
    of_scan.scan = 5 * inner * state;
  } else {
    const auto rank = static_cast<double>(c.time_step_rank);
    of_scan.projections = 2 * hidden * 2 * inner + 2 * inner * (rank + 2 * state) +
                          2 * rank * inner + 2 * inner * hidden;
    of_scan.scan = 7 * inner * state;
  }
  of_scan.convolution =
      2 * static_cast<double>(c.conv_kernel) * static_cast<double>(convolved_width(c));
  if (c.sparse_arch != "none") of_scan.projections += 2 * inner * 2 * state;
  of_scan.attention = keys * (2 * state + 2 * inner + 1);
  if (c.hashes()) of_scan.hashing = 2 * 2 * state * static_cast<double>(c.hash_columns());
  if (c.uses("key_selection")) {
    const double wide = 2 * state;
    of_scan.scoring = 2 * (wide * wide + wide * wide + wide);
  }

  TokenFlops all;
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    if (c.is_attention(layer)) {
      const double seen = visible_sum(length, 1, c.attn->window_size.value_or(length)) /
                          static_cast<double>(length);
      const double heads = static_cast<double>(c.attn->num_heads);
      all.projections += 2 * hidden * (2 * hidden + 2 * static_cast<double>(kv_width(c)));
      all.attention += seen * heads * (4 * static_cast<double>(head_size(c)) + 1);
    } else {
      all.projections += of_scan.projections;
      all.convolution += of_scan.convolution;
      all.scan += of_scan.scan;
      all.attention += of_scan.attention;
      all.hashing += of_scan.hashing;
      all.scoring += of_scan.scoring;
    }
    if (c.has_mlp()) all.mlp += 3 * 2 * hidden * static_cast<double>(c.mlp_width());
  }
  all.logits = 2 * hidden * static_cast<double>(c.vocab_size);
  return all;
}

double flops_per_token(const ModelConfig& config, std::int64_t length) {
  return flop_terms(config, length).total();
}

}  // namespace hax
