#include "models/config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/check.h"
#include "models/architectures.h"
#include "models/embedded_configs.h"

namespace hax {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string suggest(std::string_view given, const std::vector<std::string>& names) {
  const std::string wanted = lower(given);
  const auto nearest = std::ranges::min_element(
      names, {}, [&](const std::string& name) { return edit_distance(wanted, name); });
  if (nearest != names.end() && edit_distance(wanted, *nearest) <= 1 + nearest->size() / 3) {
    return fmt::format("; did you mean '{}'?", *nearest);
  }
  return fmt::format("; expected one of {}", fmt::join(names, ", "));
}

namespace {

void at_least(const char* key, std::int64_t value, std::int64_t low) {
  constexpr std::int64_t kHigh = 1 << 30;
  check_usage(value >= low && value <= kHigh, "{} is {}, expected an integer from {} to {}", key,
              value, low, kHigh);
}

void require_sparse_arch(const std::string& name) {
  const std::vector<std::string> names = sparse_arch_names();
  check_usage(std::ranges::count(names, lower(name)) == 1, "unknown sparse_arch '{}'{}", name,
              suggest(name, names));
}

}  // namespace

void ModelConfig::resolve_mamba2() {
  at_least("num_heads", num_heads, 1);
  at_least("head_dim", head_dim, 1);
  at_least("n_groups", n_groups, 1);
  at_least("chunk_size", chunk_size, 1);
  check_usage(num_heads * head_dim == intermediate_size,
              "num_heads x head_dim is {} x {}, expected expand x hidden_size = {}", num_heads,
              head_dim, intermediate_size);
  check_usage(num_heads % n_groups == 0, "n_groups is {}, expected a divisor of num_heads {}",
              n_groups, num_heads);
  check_usage(time_step_limit_low >= 0 && time_step_limit_low < time_step_limit_high,
              "time_step_limit is [{}, {}], expected 0 <= low < high", time_step_limit_low,
              time_step_limit_high);
}

void ModelConfig::resolve_attention() {
  check_usage(has_mlp(), "attn is given, but model_type is {}, expected samba or transformer",
              model_type);
  if (attn->num_kv_heads == 0) attn->num_kv_heads = attn->num_heads;
  at_least("attn.num_heads", attn->num_heads, 1);
  at_least("attn.num_kv_heads", attn->num_kv_heads, 1);
  check_usage(hidden_size % attn->num_heads == 0,
              "attn.num_heads is {}, expected a divisor of hidden_size {}", attn->num_heads,
              hidden_size);
  check_usage(attn->num_heads % attn->num_kv_heads == 0,
              "attn.num_kv_heads is {}, expected a divisor of attn.num_heads {}",
              attn->num_kv_heads, attn->num_heads);
  check_usage(hidden_size / attn->num_heads % 2 == 0,
              "hidden_size {} and attn.num_heads {} give heads of size {}, rotary embeddings need "
              "an even size; change either",
              hidden_size, attn->num_heads, hidden_size / attn->num_heads);
  check_usage(std::isfinite(attn->rope_theta) && attn->rope_theta > 0,
              "attn.rope_theta is {}, expected a positive number", attn->rope_theta);
  if (attn->window_size) at_least("attn.window_size", *attn->window_size, 1);
  for (const std::int64_t layer : attn->layers) {
    check_usage(0 <= layer && layer < num_hidden_layers,
                "attn.layers names layer {}, there are {} layers from 0", layer, num_hidden_layers);
  }
  if (model_type != "transformer" || attn->layers.empty()) return;
  const std::set<std::int64_t> listed(attn->layers.begin(), attn->layers.end());
  check_usage(
      static_cast<std::int64_t>(listed.size()) == num_hidden_layers,
      "attn.layers names {} of {} layers, expected all of a transformer's, or no attn.layers",
      listed.size(), num_hidden_layers);
}

void ModelConfig::resolve() {
  const auto positive = [](const char* key, double value) {
    check_usage(std::isfinite(value) && value > 0, "{} is {}, expected a positive number", key,
                value);
  };
  at_least("vocab_size", vocab_size, 1);
  at_least("hidden_size", hidden_size, 1);
  at_least("expand", expand, 1);
  // Mamba2's inner width follows from expand, whatever the file says (as in the released code).
  if (intermediate_size == 0 || model_type == "mamba2") intermediate_size = expand * hidden_size;
  at_least("intermediate_size", intermediate_size, 1);
  at_least("state_size", state_size, 1);
  at_least("num_hidden_layers", num_hidden_layers, 1);
  check_usage(num_hidden_layers <= 10000, "num_hidden_layers is {}, expected at most 10000",
              num_hidden_layers);
  at_least("conv_kernel", conv_kernel, 1);
  if (time_step_rank == 0) time_step_rank = (hidden_size + 15) / 16;
  at_least("time_step_rank", time_step_rank, 1);
  positive("time_step_min", time_step_min);
  positive("time_step_max", time_step_max);
  positive("time_step_floor", time_step_floor);
  positive("time_step_scale", time_step_scale);
  positive("layer_norm_epsilon", layer_norm_epsilon);
  check_usage(time_step_min <= time_step_max, "time_step_min {} exceeds time_step_max {}",
              time_step_min, time_step_max);
  check_usage(time_step_init_scheme == "random" || time_step_init_scheme == "constant",
              "time_step_init_scheme is '{}', expected random or constant", time_step_init_scheme);
  check_usage(std::isfinite(initializer_range) && initializer_range >= 0,
              "initializer_range is {}, expected a number from 0", initializer_range);

  if (model_type == "mamba2") resolve_mamba2();
  if (model_type == "transformer" && !attn) attn.emplace();
  if (attn) resolve_attention();
  at_least("hidden_ratio", hidden_ratio, 1);

  require_sparse_arch(sparse_arch);
  sparse_arch = lower(sparse_arch);
  // A branch that does not hash ignores num_hash, so that one set of flags serves every branch, but
  // not nonsense.
  if (sparse_arch == "argmax_lsh") {
    at_least("num_hash", num_hash, 0);
  } else {
    check_usage(num_hash >= 0 && num_hash <= 62,
                "num_hash is {}, expected 1 to 62 hash bits for sign_bin_lsh", num_hash);
  }
  if (sparse_arch == "none") return;
  check_usage(has_scan(),
              "sparse_arch is {}, expected none: every layer of this {} is attention, there is no "
              "scan for a sparse branch to join",
              sparse_arch, model_type);
  const auto parts = static_cast<std::int64_t>(sparse_components().size());
  at_least("sparse_keys", sparse_keys, parts);
  check_usage(!uses("dilated") || data_max_length >= keys_per_component(),
              "data_max_length is {}, expected at least the {} keys of the dilated pattern",
              data_max_length, keys_per_component());
  at_least("data_max_length", data_max_length, 1);
}

bool ModelConfig::is_attention(std::int64_t layer) const {
  if (!attn) return false;
  return model_type == "transformer" || std::ranges::count(attn->layers, layer) != 0;
}

bool ModelConfig::has_scan() const {
  for (std::int64_t layer = 0; layer < num_hidden_layers; ++layer) {
    if (!is_attention(layer)) return true;
  }
  return false;
}

std::int64_t ModelConfig::mlp_width() const {
  if (model_type == "transformer") return intermediate_size;
  // Cut to a whole number before rounding up, as the released code does.
  const std::int64_t wanted = hidden_size * hidden_ratio * 2 / 3;
  return (wanted + 255) / 256 * 256;
}

std::vector<std::string> ModelConfig::sparse_components() const {
  std::vector<std::string> parts;
  if (sparse_arch == "none") return parts;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = sparse_arch.find('+', begin);
    parts.push_back(sparse_arch.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

std::int64_t ModelConfig::keys_per_component() const {
  return sparse_keys /
         std::max<std::int64_t>(1, static_cast<std::int64_t>(sparse_components().size()));
}

bool ModelConfig::uses(std::string_view component) const {
  // Asked for every sequence: no strings are made.
  if (sparse_arch == "none") return false;
  for (std::string_view rest = sparse_arch;;) {
    const std::size_t end = rest.find('+');
    if (rest.substr(0, end) == component) return true;
    if (end == std::string_view::npos) return false;
    rest.remove_prefix(end + 1);
  }
}

std::int64_t ModelConfig::hash_columns() const {
  if (num_hash > 0) return num_hash;
  return uses("argmax_lsh") ? sparse_keys : 8;
}

LshCenter ModelConfig::center() const {
  if (lsh_center) return *lsh_center;
  return norm_mode == NormMode::causal ? LshCenter::causal : LshCenter::sequence;
}

ModelConfig named_config(std::string_view base_arch, std::string_view sparse_arch) {
  const std::string base = lower(base_arch), sparse = lower(sparse_arch);
  require_sparse_arch(std::string(sparse_arch));
  for (const EmbeddedText& text : embedded_configs()) {
    if (text.name != base) continue;
    ModelConfig config = parse_config(text.text, fmt::format("models/configs/{}.json", base));
    config.sparse_arch = sparse;
    return config;
  }
  throw UsageError(
      fmt::format("unknown base_arch '{}'{}", base_arch, suggest(base, base_arch_names())));
}

}  // namespace hax
