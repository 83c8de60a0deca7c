// Configurations as JSON, in the keys of the released files.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "models/config.h"

namespace hax {
namespace {

using Json = nlohmann::json;

// Keys of released files that say nothing about a model's mathematics: those of their training
// stack, of other model types, and the token ids, which belong to the data.
const std::vector<std::string>& ignored_keys() {
  static const std::vector<std::string> keys{
      "fuse_cross_entropy",     "fuse_norm",     "fuse_swiglu",  "use_cache",
      "transformers_version",   "architectures", "torch_dtype",  "tie_word_embeddings",
      "bos_token_id",           "eos_token_id",  "pad_token_id", "rms_norm",
      "max_position_embeddings"};
  return keys;
}

// Keys that would mean nothing to a Transformer; taken in silence they would look obeyed.
const std::vector<std::string>& scan_keys() {
  static const std::vector<std::string> keys{
      "expand",        "state_size",     "conv_kernel",     "time_step_rank",
      "time_step_min", "time_step_max",  "time_step_floor", "time_step_scale",
      "use_bias",      "use_conv_bias",  "num_heads",       "time_step_init_scheme",
      "head_dim",      "n_groups",       "chunk_size",      "rescale_prenorm_residual",
      "hidden_ratio",  "time_step_limit"};
  return keys;
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
  void refuse(const std::vector<std::string>& keys, std::string_view why) const {
    for (const std::string& key : keys) {
      if (json_.contains(key)) throw UsageError(fmt::format("{}: {} {}", source_, key, why));
    }
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

void read_attention(const Json& json, std::string_view source, AttentionConfig& a) {
  check_usage(json.is_object(), "{}: attn is {}, expected an object", source, json.dump());
  const std::string name = fmt::format("{}: attn", source);
  Reader read(json, name);
  if (const Json* layers = read.find("layers")) {
    const bool ok = layers->is_array() && std::ranges::all_of(*layers, [](const Json& layer) {
                      return layer.is_number_integer();
                    });
    if (!ok) read.fail("layers", *layers, "a list of layer numbers");
    a.layers = layers->get<std::vector<std::int64_t>>();
  }
  read.integer("num_heads", a.num_heads);
  read.integer("num_kv_heads", a.num_kv_heads);
  read.boolean("qkv_bias", a.qkv_bias);
  read.number("rope_theta", a.rope_theta);
  if (const Json* window = read.find("window_size")) {
    if (!window->is_number_integer()) read.fail("window_size", *window, "an integer");
    a.window_size = window->get<std::int64_t>();
  }
  read.refuse_the_rest();
}

// [low, high]; the released files write an unlimited high end as Infinity, which JSON does not
// have, or as a large number.
void read_time_step_limit(Reader& read, ModelConfig& c) {
  const Json* limit = read.find("time_step_limit");
  if (limit == nullptr) return;
  const auto is_bound = [](const Json& bound) { return bound.is_number() || bound.is_null(); };
  const bool ok = limit->is_array() && limit->size() == 2 && std::ranges::all_of(*limit, is_bound);
  if (!ok) read.fail("time_step_limit", *limit, "[low, high], with null for no limit");
  if (!limit->at(0).is_null()) c.time_step_limit_low = limit->at(0).get<double>();
  if (!limit->at(1).is_null()) c.time_step_limit_high = limit->at(1).get<double>();
}

Json scan_json(const ModelConfig& c) {
  return {{"expand", c.expand},
          {"state_size", c.state_size},
          {"conv_kernel", c.conv_kernel},
          {"time_step_rank", c.time_step_rank},
          {"time_step_min", c.time_step_min},
          {"time_step_max", c.time_step_max},
          {"time_step_floor", c.time_step_floor},
          {"time_step_scale", c.time_step_scale},
          {"time_step_init_scheme", c.time_step_init_scheme},
          {"use_bias", c.use_bias},
          {"use_conv_bias", c.use_conv_bias},
          {"residual_in_fp32", c.residual_in_fp32},
          {"rescale_prenorm_residual", c.rescale_prenorm_residual}};
}

Json mamba2_json(const ModelConfig& c) {
  Json json{{"num_heads", c.num_heads},
            {"head_dim", c.head_dim},
            {"n_groups", c.n_groups},
            {"chunk_size", c.chunk_size}};
  if (c.limits_time_step()) {
    const bool open = std::isinf(c.time_step_limit_high);
    json["time_step_limit"] = {c.time_step_limit_low, open ? Json() : Json(c.time_step_limit_high)};
  }
  return json;
}

Json attention_json(const AttentionConfig& a) {
  Json json{{"num_heads", a.num_heads},
            {"num_kv_heads", a.num_kv_heads},
            {"qkv_bias", a.qkv_bias},
            {"rope_theta", a.rope_theta}};
  if (!a.layers.empty()) json["layers"] = a.layers;
  if (a.window_size) json["window_size"] = *a.window_size;
  return json;
}

}  // namespace

ModelConfig parse_config(std::string_view text, std::string_view source) {
  const Json json = parse_object(text, source);
  ModelConfig c;
  Reader read(json, source);
  read.text("model_type", c.model_type);
  const std::vector<std::string> types{"mamba", "mamba2", "samba", "transformer"};
  check_usage(std::ranges::count(types, c.model_type) == 1,
              "{}: model_type is '{}', expected one of {}", source, c.model_type,
              fmt::join(types, ", "));
  // What the released code takes for keys that are left out.
  if (c.model_type == "mamba2") c.rescale_prenorm_residual = true;
  if (c.model_type == "samba") c.initializer_range = 0.02;
  if (c.model_type == "transformer") {
    read.refuse(scan_keys(),
                "has no meaning for a transformer; intermediate_size is the width of its MLP, attn "
                "holds its heads");
  }
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
  read.number("norm_eps", c.layer_norm_epsilon);  // Samba's and the Transformer's name for it
  read.number("layer_norm_epsilon", c.layer_norm_epsilon);
  read.number("initializer_range", c.initializer_range);
  read.boolean("use_bias", c.use_bias);
  read.boolean("use_conv_bias", c.use_conv_bias);
  read.boolean("residual_in_fp32", c.residual_in_fp32);
  read.boolean("rescale_prenorm_residual", c.rescale_prenorm_residual);
  read.integer("num_heads", c.num_heads);
  read.integer("head_dim", c.head_dim);
  read.integer("n_groups", c.n_groups);
  read.integer("chunk_size", c.chunk_size);
  read_time_step_limit(read, c);
  read.integer("hidden_ratio", c.hidden_ratio);
  if (const Json* attention = read.find("attn")) {
    read_attention(*attention, source, c.attn.emplace());
  }
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
            {"num_hidden_layers", c.num_hidden_layers},
            {"hidden_act", "silu"},
            {"layer_norm_epsilon", c.layer_norm_epsilon},
            {"initializer_range", c.initializer_range},
            {"sparse_arch", c.sparse_arch},
            {"sparse_keys", c.sparse_keys},
            {"data_max_length", c.data_max_length},
            {"norm_mode", word_of(norm_modes(), c.norm_mode)}};
  if (c.model_type != "transformer") json.update(scan_json(c));
  if (c.model_type == "mamba2") json.update(mamba2_json(c));
  if (c.model_type == "samba") json["hidden_ratio"] = c.hidden_ratio;
  if (c.attn) json["attn"] = attention_json(*c.attn);
  if (c.uses("argmax_lsh") || c.uses("sign_bin_lsh")) json["num_hash"] = c.hash_columns();
  if (c.lsh_center) json["lsh_center"] = word_of(lsh_centers(), c.lsh_center);
  return json.dump(2) + "\n";
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

}  // namespace hax
