// Configuration of a model, in the keys of the released JSON files (REFERENCE section 5).
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/lsh/lsh.h"
#include "ops/norm_mode.h"

namespace hax {

/// Attention layers: some among the others (Samba) or all of them (Transformer).
struct AttentionConfig {
  std::vector<std::int64_t> layers;  ///< Samba: which layers are attention; Transformer: {} or all
  std::int64_t num_heads = 4;
  std::int64_t num_kv_heads = 0;  ///< 0: num_heads
  bool qkv_bias = false;
  double rope_theta = 10000;
  std::optional<std::int64_t> window_size;
};

/// Every field has the value of the paper's Mamba; what is derived from others is filled in by
/// resolve().
struct ModelConfig {
  std::string model_type = "mamba";
  std::int64_t vocab_size = 100;
  std::int64_t hidden_size = 64;       // D
  std::int64_t intermediate_size = 0;  // E; 0: expand x hidden_size
  std::int64_t expand = 2;
  std::int64_t state_size = 16;  // N
  std::int64_t num_hidden_layers = 2;
  std::int64_t conv_kernel = 4;
  std::int64_t time_step_rank = 0;  // 0 ("auto"): hidden_size / 16, rounded up
  double time_step_min = 1e-3, time_step_max = 0.1, time_step_floor = 1e-4, time_step_scale = 1;
  std::string time_step_init_scheme = "random";  // or "constant"
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.1;
  bool use_bias = false;
  bool use_conv_bias = true;
  bool residual_in_fp32 = false;  // no effect in float32 and float64
  bool rescale_prenorm_residual = false;

  // Mamba2
  std::int64_t num_heads = 8, head_dim = 16;
  std::int64_t n_groups = 1;
  std::int64_t chunk_size = 256;
  double time_step_limit_low = 0, time_step_limit_high = std::numeric_limits<double>::infinity();
  // Samba and Transformer
  std::optional<AttentionConfig> attn;  // a Transformer without it has the defaults
  std::int64_t hidden_ratio = 4;        // Samba's MLP

  std::string sparse_arch = "none";
  std::int64_t sparse_keys = 64;
  std::int64_t num_hash = 0;  // 0: sparse_keys for argmax_lsh, 8 for sign_bin_lsh
  std::int64_t data_max_length = 2048;
  NormMode norm_mode = NormMode::causal;
  std::optional<LshCenter> lsh_center;  // by default the norm mode's

  /// Fills in derived values and throws UsageError on any value out of range, naming the key.
  void resolve();

  // After resolve():
  /// Components of the sparse branch, e.g. {"sign_bin_lsh", "key_selection"}; empty for none.
  std::vector<std::string> sparse_components() const;
  /// Keys of each component: sparse_keys / number of components, rounded down.
  std::int64_t keys_per_component() const;
  bool uses(std::string_view component) const;
  bool hashes() const { return uses("argmax_lsh") || uses("sign_bin_lsh"); }
  /// Whether the mixer of this layer is attention and not a scan.
  bool is_attention(std::int64_t layer) const;
  /// Whether any layer has a scan, which a sparse branch joins.
  bool has_scan() const;
  /// Whether an MLP follows every mixer.
  bool has_mlp() const { return model_type == "samba" || model_type == "transformer"; }
  /// Inner width of that MLP. Samba: 2/3 x hidden_ratio x hidden_size, rounded up to a multiple of
  /// 256; Transformer: intermediate_size.
  std::int64_t mlp_width() const;
  bool limits_time_step() const {
    return time_step_limit_low > 0 ||
           time_step_limit_high < std::numeric_limits<double>::infinity();
  }
  /// Columns of the LSH matrix: num_hash, or 8 for sign_bin_lsh and sparse_keys for argmax_lsh.
  std::int64_t hash_columns() const;
  LshCenter center() const;
  std::int64_t dilation() const { return data_max_length / keys_per_component(); }

 private:
  void resolve_mamba2();
  void resolve_attention();
};

/// Parses the JSON text of a configuration, resolved. Unknown keys are refused by name; `source`
/// names the text in errors. Throws UsageError.
ModelConfig parse_config(std::string_view json, std::string_view source);
/// The JSON text of a resolved configuration: parse_config gives it back. Keys sorted, no clock, no
/// path.
std::string to_json(const ModelConfig& config);

/// "causal" or "released"; throws UsageError otherwise.
NormMode parse_norm_mode(std::string_view word);
/// "causal", "sequence" or "none"; throws UsageError otherwise.
LshCenter parse_lsh_center(std::string_view word);

/// The configuration called `base_arch` (any case) with the sparse branch `sparse_arch` (any case;
/// models/architectures.h has both tables), not yet resolved. Throws UsageError naming the nearest
/// right name.
ModelConfig named_config(std::string_view base_arch, std::string_view sparse_arch);

/// "; did you mean 'x'?" when one of `names` is close to `given`, else "; one of a, b, c".
std::string suggest(std::string_view given, const std::vector<std::string>& names);

}  // namespace hax
