#include "models/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "models/embedded_configs.h"

namespace hax {
namespace {

using Json = nlohmann::json;

// Keys of released files that say nothing about a Mamba model's mathematics: those of their
// training stack, of other model types, and the token ids, which belong to the data.
const std::vector<std::string>& ignored_keys() {
  static const std::vector<std::string> keys{"fuse_cross_entropy",
                                             "fuse_norm",
                                             "fuse_swiglu",
                                             "use_cache",
                                             "transformers_version",
                                             "architectures",
                                             "torch_dtype",
                                             "tie_word_embeddings",
                                             "bos_token_id",
                                             "eos_token_id",
                                             "pad_token_id",
                                             "rms_norm",
                                             "max_position_embeddings",
                                             "num_heads",
                                             "head_dim",
                                             "n_groups",
                                             "chunk_size",
                                             "time_step_limit",
                                             "hidden_ratio",
                                             "attn"};
  return keys;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// Reads one key after another from a JSON object and remembers which ones were read.
class Reader {
 public:
  Reader(const Json& json, std::string_view source) : json_(json), source_(source) {}

  void integer(const char* key, std::int64_t& value) {
    if (const Json* found = find(key)) {
      if (!found->is_number_integer()) fail(key, *found, "an integer");
      value = found->get<std::int64_t>();
    }
  }
  void number(const char* key, double& value) {
    if (const Json* found = find(key)) {
      if (!found->is_number()) fail(key, *found, "a number");
      value = found->get<double>();
    }
  }
  void boolean(const char* key, bool& value) {
    if (const Json* found = find(key)) {
      if (!found->is_boolean()) fail(key, *found, "true or false");
      value = found->get<bool>();
    }
  }
  void text(const char* key, std::string& value) {
    if (const Json* found = find(key)) {
      if (!found->is_string()) fail(key, *found, "a string");
      value = found->get<std::string>();
    }
  }
  // One of a few words.
  template <class T>
  void choice(const char* key, const std::map<std::string, T>& words, T& value) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : words) names.push_back(name);
    if (const Json* found = find(key)) {
      if (!found->is_string() || !words.contains(found->get<std::string>())) {
        fail(key, *found, fmt::format("one of {}", fmt::join(names, ", ")));
      }
      value = words.at(found->get<std::string>());
    }
  }
  /// The value of a key that is present and not null.
  const Json* find(const char* key) {
    read_.emplace_back(key);
    const auto at = json_.find(key);
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }
  [[noreturn]] void fail(const char* key, const Json& found, std::string_view expected) const {
    throw UsageError(
        fmt::format("{}: {} is {}, expected {}", source_, key, found.dump(), expected));
  }
  void refuse_the_rest() const {
    for (const auto& [key, unused] : json_.items()) {
      if (std::ranges::count(read_, key) == 0 && std::ranges::count(ignored_keys(), key) == 0) {
        throw UsageError(fmt::format("{}: unknown key '{}'{}", source_, key, suggest(key, read_)));
      }
    }
  }

 private:
  const Json& json_;
  std::string_view source_;
  std::vector<std::string> read_;
};

const std::map<std::string, NormMode>& norm_modes() {
  static const std::map<std::string, NormMode> modes{{"causal", NormMode::causal},
                                                     {"released", NormMode::released}};
  return modes;
}

const std::map<std::string, std::optional<LshCenter>>& lsh_centers() {
  static const std::map<std::string, std::optional<LshCenter>> centers{
      {"causal", LshCenter::causal}, {"sequence", LshCenter::sequence}, {"none", LshCenter::none}};
  return centers;
}

template <class T>
std::string word_of(const std::map<std::string, T>& words, const T& value) {
  for (const auto& [word, meaning] : words) {
    if (meaning == value) return word;
  }
  return {};
}

Json parse_object(std::string_view text, std::string_view source) {
  try {
    Json json = Json::parse(text);
    check_usage(json.is_object(), "{}: expected a JSON object", source);
    return json;
  } catch (const Json::exception& error) {
    throw UsageError(fmt::format("{}: not valid JSON: {}", source, error.what()));
  }
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

ModelConfig parse_config(std::string_view text, std::string_view source) {
  const Json json = parse_object(text, source);
  ModelConfig c;
  Reader read(json, source);
  read.text("model_type", c.model_type);
  check_usage(c.model_type == "mamba", "{}: model_type is '{}', this build has mamba", source,
              c.model_type);
  read.integer("vocab_size", c.vocab_size);
  read.integer("hidden_size", c.hidden_size);
  read.integer("intermediate_size", c.intermediate_size);
  read.integer("expand", c.expand);
  read.integer("state_size", c.state_size);
  read.integer("num_hidden_layers", c.num_hidden_layers);
  read.integer("conv_kernel", c.conv_kernel);
  if (const Json* rank = read.find("time_step_rank"); rank && *rank != Json("auto")) {
    read.integer("time_step_rank", c.time_step_rank);
  }
  read.number("time_step_min", c.time_step_min);
  read.number("time_step_max", c.time_step_max);
  read.number("time_step_floor", c.time_step_floor);
  read.number("time_step_scale", c.time_step_scale);
  read.text("time_step_init_scheme", c.time_step_init_scheme);
  read.number("norm_eps", c.layer_norm_epsilon);  // Samba's name for it
  read.number("layer_norm_epsilon", c.layer_norm_epsilon);
  read.number("initializer_range", c.initializer_range);
  read.boolean("use_bias", c.use_bias);
  read.boolean("use_conv_bias", c.use_conv_bias);
  read.boolean("residual_in_fp32", c.residual_in_fp32);
  read.boolean("rescale_prenorm_residual", c.rescale_prenorm_residual);
  int activation = 0;
  read.choice<int>("hidden_act", {{"silu", 0}, {"swish", 0}}, activation);
  read.text("sparse_arch", c.sparse_arch);
  read.integer("sparse_keys", c.sparse_keys);
  read.integer("num_hash", c.num_hash);
  read.integer("data_max_length", c.data_max_length);
  read.choice("norm_mode", norm_modes(), c.norm_mode);
  read.choice("lsh_center", lsh_centers(), c.lsh_center);
  read.refuse_the_rest();
  try {
    c.resolve();
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}: {}", source, error.what()));
  }
  return c;
}

std::string to_json(const ModelConfig& c) {
  Json json{{"model_type", c.model_type},
            {"vocab_size", c.vocab_size},
            {"hidden_size", c.hidden_size},
            {"intermediate_size", c.intermediate_size},
            {"expand", c.expand},
            {"state_size", c.state_size},
            {"num_hidden_layers", c.num_hidden_layers},
            {"conv_kernel", c.conv_kernel},
            {"time_step_rank", c.time_step_rank},
            {"time_step_min", c.time_step_min},
            {"time_step_max", c.time_step_max},
            {"time_step_floor", c.time_step_floor},
            {"time_step_scale", c.time_step_scale},
            {"time_step_init_scheme", c.time_step_init_scheme},
            {"hidden_act", "silu"},
            {"layer_norm_epsilon", c.layer_norm_epsilon},
            {"initializer_range", c.initializer_range},
            {"use_bias", c.use_bias},
            {"use_conv_bias", c.use_conv_bias},
            {"residual_in_fp32", c.residual_in_fp32},
            {"rescale_prenorm_residual", c.rescale_prenorm_residual},
            {"sparse_arch", c.sparse_arch},
            {"sparse_keys", c.sparse_keys},
            {"data_max_length", c.data_max_length},
            {"norm_mode", word_of(norm_modes(), c.norm_mode)}};
  if (c.uses("argmax_lsh") || c.uses("sign_bin_lsh")) json["num_hash"] = c.hash_columns();
  if (c.lsh_center) json["lsh_center"] = word_of(lsh_centers(), c.lsh_center);
  return json.dump(2) + "\n";
}

void ModelConfig::resolve() {
  const auto at_least = [](const char* key, std::int64_t value, std::int64_t low) {
    constexpr std::int64_t kHigh = 1 << 30;
    check_usage(value >= low && value <= kHigh, "{} is {}, expected an integer from {} to {}", key,
                value, low, kHigh);
  };
  const auto positive = [](const char* key, double value) {
    check_usage(std::isfinite(value) && value > 0, "{} is {}, expected a positive number", key,
                value);
  };
  at_least("vocab_size", vocab_size, 1);
  at_least("hidden_size", hidden_size, 1);
  at_least("expand", expand, 1);
  if (intermediate_size == 0) intermediate_size = expand * hidden_size;
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

  sparse_arch = lower(sparse_arch);
  check_usage(std::ranges::count(sparse_arch_names(), sparse_arch) == 1,
              "unknown sparse_arch '{}'{}", sparse_arch, suggest(sparse_arch, sparse_arch_names()));
  // A branch that does not hash ignores num_hash, so that one set of flags serves every branch, but
  // not nonsense.
  if (sparse_arch == "argmax_lsh") {
    at_least("num_hash", num_hash, 0);
  } else {
    check_usage(num_hash >= 0 && num_hash <= 62,
                "num_hash is {}, expected 1 to 62 hash bits for sign_bin_lsh", num_hash);
  }
  if (sparse_arch == "none") return;
  const auto parts = static_cast<std::int64_t>(sparse_components().size());
  at_least("sparse_keys", sparse_keys, parts);
  check_usage(!uses("dilated") || data_max_length >= keys_per_component(),
              "data_max_length is {}, expected at least the {} keys of the dilated pattern",
              data_max_length, keys_per_component());
  at_least("data_max_length", data_max_length, 1);
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
  return std::ranges::count(sparse_components(), component) != 0;
}

std::int64_t ModelConfig::hash_columns() const {
  if (num_hash > 0) return num_hash;
  return uses("argmax_lsh") ? sparse_keys : 8;
}

LshCenter ModelConfig::center() const {
  if (lsh_center) return *lsh_center;
  return norm_mode == NormMode::causal ? LshCenter::causal : LshCenter::sequence;
}

NormMode parse_norm_mode(std::string_view word) {
  const auto found = norm_modes().find(std::string(word));
  check_usage(found != norm_modes().end(), "norm_mode '{}': expected causal or released", word);
  return found->second;
}

LshCenter parse_lsh_center(std::string_view word) {
  const auto found = lsh_centers().find(std::string(word));
  check_usage(found != lsh_centers().end(), "lsh_center '{}': expected causal, sequence or none",
              word);
  return *found->second;
}

const std::vector<std::string>& sparse_arch_names() {
  static const std::vector<std::string> names{"none",
                                              "full",
                                              "dilated",
                                              "sliding_window",
                                              "sliding_window+dilated",
                                              "sliding_window+sink",
                                              "argmax_lsh",
                                              "sign_bin_lsh",
                                              "key_selection",
                                              "sign_bin_lsh+key_selection"};
  return names;
}

std::vector<std::string> base_arch_names() {
  std::vector<std::string> names;
  for (const EmbeddedText& config : embedded_configs()) names.emplace_back(config.name);
  return names;
}

ModelConfig named_config(std::string_view base_arch, std::string_view sparse_arch) {
  const std::string base = lower(base_arch), sparse = lower(sparse_arch);
  check_usage(std::ranges::count(sparse_arch_names(), sparse) == 1, "unknown sparse_arch '{}'{}",
              sparse_arch, suggest(sparse, sparse_arch_names()));
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
