#include "tools/bench/op_cases.h"

#include "ops/elementwise/elementwise.h"
#include "tools/bench/op_builders.h"

namespace hax::bench {
namespace {

constexpr std::int64_t kHidden = 64, kInner = 128, kState = 16, kVocabulary = 100;
constexpr std::int64_t kHeads2 = 8, kState2 = 32;  // Mamba2
constexpr std::int64_t kSambaHidden = 32, kHeads = 4, kWindow = 64;

OpCase softplus_case(std::string name, std::int64_t width) {
  const auto w = static_cast<double>(width);
  return rows_case(std::move(name), width, [](Vars v) { return softplus(v[0]); },
                   {.other = 4 * w, .exps = 2 * w}, {.other = 6 * w, .exps = 2 * w});
}

OpCase mul_silu_case(std::string name, std::int64_t width) {
  const auto w = static_cast<double>(width);
  return pair_case(
      std::move(name), width, [](Vars v) { return mul_silu(v[0], v[1]); },
      {.other = 6 * w, .exps = w}, {.other = 12 * w, .exps = w}, 5 * w);
}

}  // namespace

std::vector<OpCase> op_cases() {
  return {
      embedding_case("embedding, 64 of 100", kVocabulary, kHidden),
      norm_case("rms_norm 64", kHidden),
      linear_case("linear 64 to 256 (in_proj)", kHidden, 2 * kInner),
      linear_case("linear 128 to 40 (x_proj)", kInner, 40),
      linear_case("linear 128 to 64 (out_proj)", kInner, kHidden),
      conv_case("causal_conv1d 128, silu", kInner),
      softplus_case("softplus 128", kInner),
      scan_case("selective_scan 128, 16 states", kInner, kState),
      ssd_case("ssd 8 x 16, 32 states", kHeads2, kInner / kHeads2, kState2),
      sparse_attention_case("sparse_attention, HAX's 64 keys", kState, kInner),
      full_attention_case("full_attention 4 x 8, window 64", kHeads, kSambaHidden, kWindow),
      full_attention_case("full_attention 4 x 16", kHeads, kHidden, std::nullopt),
      rotary_case("rotary 4 x 8", kSambaHidden, kHeads),
      mul_silu_case("mul_silu 128", kInner),
      gate_case("gate 128", kInner),
      loss_case("cross_entropy 100, a target", kVocabulary),
      running_sum_case("normalized_running_sum 16", kState),
      ranking_case("ranking_target, 32 candidates", kState, 32),
      bins_case("lsh_bins 16, 8 signs", kState, 8),
  };
}

std::vector<OpCase> selector_cases() {
  return {bin_keys_case("lsh_keys, 32 of 256 bins", 32),
          key_selection_case("key_selection, 32 keys", 32)};
}

std::vector<OpCase> moving_cases(std::int64_t width) {
  const auto w = static_cast<double>(width);
  const auto name = [&](const char* op) { return fmt::format("{} {}", op, width); };
  return {
      pair_case(
          name("add"), width, [](Vars v) { return add(v[0], v[1]); }, {.other = w}, {}, 0),
      softplus_case(name("softplus"), width),
      mul_silu_case(name("mul_silu"), width),
      gate_case(name("gate"), width),
      norm_case(name("rms_norm"), width),
      rotary_case(name("rotary"), width, width / 64),
      conv_case(name("causal_conv1d"), width),
      embedding_case(name("embedding"), kVocabulary, width),
      join_case(name("join_rows"), width),
  };
}

}  // namespace hax::bench
