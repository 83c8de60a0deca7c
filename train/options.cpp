#include "train/options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/joint_recall.h"
#include "engine/check.h"
#include "engine/device.h"
#include "engine/files.h"
#include "models/architectures.h"
#include "train/embedded_recipes.h"

namespace hax {
namespace {

constexpr std::int64_t kMillion = 1'000'000, kSteps = 4'000'000'000;

}  // namespace

std::span<const OptionSpec> option_specs() {
  using O = TrainOptions;
  static const OptionSpec specs[] = {
      {"base_arch", "base architecture:\n" + base_arch_lines(), &O::base_arch},
      {"sparse_arch",
       "sparse branch (none); of the positions so far a query sees\n" + sparse_arch_lines() +
           "\n(k: --sparse_keys, d: see --data_max_length)",
       &O::sparse_arch},
      {"config", "model configuration file instead of --base_arch", &O::config},
      {"sparse_keys", "keys a query may see, shared among the branch's components (64)",
       &O::sparse_keys, 0, kMillion},
      {"num_hash", "hash columns (8 for sign_bin_lsh, sparse_keys for argmax_lsh)", &O::num_hash, 0,
       kMillion},
      {"data_max_length", "dilation is this over the keys of the dilated pattern (2048)",
       &O::data_max_length, 0, 1 << 30},
      {"norm_mode", "causal (the default), or released: as in the released code", &O::norm_mode},
      {"lsh_center", "causal, sequence or none; by default the norm mode's", &O::lsh_center},
      {"contexts", "a:b contexts (streamed task)", &O::contexts},
      {"keys", "a:b keys (streamed task)", &O::keys},
      {"values", "number of values V (streamed task)", &O::values, 1, kMillion},
      {"levels", "context levels w: 1 associative recall, 2 joint recall, 3 and more", &O::levels,
       1, kMaxLevels},
      {"data_dir", "dataset folder of `hax data generate`; without it samples are streamed",
       &O::data_dir},
      {"save_dir", "run folder to create", &O::save_dir},
      {"valid_samples", "validation samples; 0: 1,440 streamed, or the whole file",
       &O::valid_samples, 0, 1000 * kMillion},
      {"test_samples", "test samples; 0: 1,440 streamed, or the whole file", &O::test_samples, 0,
       1000 * kMillion},
      {"lr", "learning rate after warm-up", &O::lr},
      {"gate_loss_weight", "weight of the ranking loss", &O::gate_loss_weight},
      {"step", "optimiser steps", &O::step, 1, kSteps},
      {"warmup_step", "steps of linear warm-up", &O::warmup_step, 0, kSteps},
      {"valid_step", "steps between validations", &O::valid_step, 1, kSteps},
      {"bsz", "sequences a micro-batch", &O::bsz, 1, kMillion},
      {"grad_acc", "micro-batches an optimiser step", &O::grad_acc, 1, kMillion},
      {"clip_norm", "clip the gradient's norm to this; 0: off", &O::clip_norm},
      {"weight_decay", "AdamW's decoupled weight decay", &O::weight_decay},
      {"beta1", "AdamW", &O::beta1},
      {"beta2", "AdamW", &O::beta2},
      {"adam_eps", "AdamW", &O::adam_eps},
      {"seed", "of initial weights, hashes, candidates and streamed samples", &O::seed, 0,
       INT64_MAX},
      {"log_step", "steps between lines of metrics.jsonl", &O::log_step, 1, kSteps},
      {"shards", "pieces a batch is cut into for threads, 1 to 8; part of the arithmetic",
       &O::shards, 1, 8},
      {"device", "cpu (or cuda in a build with it)", &O::device},
      {"threads", "threads; 0: one a core. Never changes a result", &O::threads, 0, 1024},
      {"graph",
       "on or off: whether steps on CUDA are queued as one graph where\nlengths repeat. Never "
       "changes a result",
       &O::graph},
  };
  return specs;
}

namespace {

using Json = nlohmann::json;

void set_option(const OptionSpec& spec, const Json& value, std::string_view source,
                TrainOptions& options) {
  const auto expect = [&](bool ok, std::string_view kind) {
    check_usage(ok, "{}: {} is {}, expected {}", source, spec.name, value.dump(), kind);
  };
  std::visit(
      [&](auto member) {
        using T = std::remove_reference_t<decltype(options.*member)>;
        if constexpr (std::is_same_v<T, std::int64_t>) {
          expect(value.is_number_integer(), "an integer");
        } else if constexpr (std::is_same_v<T, double>) {
          expect(value.is_number(), "a number");
        } else {
          expect(value.is_string(), "a string");
        }
        options.*member = value.get<T>();
      },
      spec.member);
}

}  // namespace

void apply_recipe(std::string_view text, std::string_view source, TrainOptions& options) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    throw UsageError(fmt::format("{}: not valid JSON: {}", source, error.what()));
  }
  check_usage(json.is_object(), "{}: expected a JSON object of settings", source);
  check_usage(!json.contains("architectures"), "{}: is a grid of runs, for hax sweep", source);
  std::vector<std::string> names;
  for (const OptionSpec& spec : option_specs()) names.emplace_back(spec.name);
  for (const auto& [key, value] : json.items()) {
    const auto spec =
        std::ranges::find_if(option_specs(), [&](const OptionSpec& s) { return s.name == key; });
    check_usage(spec != option_specs().end(), "{}: unknown setting '{}'{}", source, key,
                suggest(key, names));
    set_option(*spec, value, source, options);
  }
}

std::string to_json(const TrainOptions& options) {
  Json json = Json::object();
  for (const OptionSpec& spec : option_specs()) {
    std::visit([&](auto member) { json[spec.name] = options.*member; }, spec.member);
  }
  return json.dump(2) + "\n";
}

std::string find_recipe(const std::string& name) {
  std::vector<std::string> names;
  for (const EmbeddedText& recipe : embedded_recipes()) {
    if (recipe.name == name) return std::string(recipe.text);
    names.emplace_back(recipe.name);
  }
  check_usage(std::filesystem::exists(name), "recipe '{}' is neither a file nor known{}", name,
              suggest(name, names));
  return read_file(name);
}

void TrainOptions::validate() const {
  for (const OptionSpec& spec : option_specs()) {
    const auto* member = std::get_if<std::int64_t TrainOptions::*>(&spec.member);
    if (member == nullptr) continue;
    const std::int64_t value = this->**member;
    check_usage(value >= spec.least && value <= spec.most,
                "--{} {}: expected a whole number from {} to {}", spec.name, value, spec.least,
                spec.most);
  }
  const auto number = [](const char* name, double value, bool ok, const char* expected) {
    check_usage(std::isfinite(value) && ok, "--{} {}: expected {}", name, value, expected);
  };
  number("lr", lr, lr > 0 && lr <= 10, "a learning rate above 0, at most 10");
  number("gate_loss_weight", gate_loss_weight, gate_loss_weight >= 0, "a number from 0");
  number("clip_norm", clip_norm, clip_norm >= 0, "a number from 0");
  number("weight_decay", weight_decay, weight_decay >= 0 && weight_decay <= 1,
         "a number from 0 to 1");
  number("beta1", beta1, beta1 >= 0 && beta1 < 1, "a number from 0, below 1");
  number("beta2", beta2, beta2 >= 0 && beta2 < 1, "a number from 0, below 1");
  number("adam_eps", adam_eps, adam_eps > 0, "a positive number");
  check_usage(bsz * grad_acc <= INT64_MAX / kSteps,
              "--bsz {} x --grad_acc {}: too many sequences a step", bsz, grad_acc);
  check_usage(graph == "on" || graph == "off", "--graph {}: expected on or off", graph);
  parse_device(device);
}

ModelConfig TrainOptions::model_config(std::int64_t vocab_needed) const {
  ModelConfig model;
  if (config.empty()) {
    model = named_config(base_arch, sparse_arch.empty() ? "none" : sparse_arch);
    model.vocab_size = std::max(model.vocab_size, vocab_needed);
  } else {
    model = parse_config(read_file(config), config);
    check_usage(model.vocab_size >= vocab_needed,
                "{}: vocab_size is {}, the task has tokens up to {}", config, model.vocab_size,
                vocab_needed - 1);
    if (!sparse_arch.empty()) model.sparse_arch = sparse_arch;
  }
  if (sparse_keys != 0) model.sparse_keys = sparse_keys;
  if (num_hash != 0) model.num_hash = num_hash;
  if (data_max_length != 0) model.data_max_length = data_max_length;
  if (!norm_mode.empty()) model.norm_mode = parse_norm_mode(norm_mode);
  if (!lsh_center.empty()) model.lsh_center = parse_lsh_center(lsh_center);
  model.resolve();
  return model;
}

void refuse_idle_settings(std::span<const std::string> given, const ModelConfig& model) {
  const auto idle = [&](const char* name, bool used, const char* why) {
    check_usage(used || std::ranges::count(given, name) == 0,
                "--{} changes nothing: sparse_arch is {}, {}; leave it out", name,
                model.sparse_arch, why);
  };
  const bool sparse = model.sparse_arch != "none";
  idle("sparse_keys", sparse && !model.uses("full"),
       sparse ? "which sees all keys" : "there is no sparse branch");
  idle("num_hash", model.hashes(), "which does not hash");
  idle("lsh_center", model.hashes(), "which does not hash");
  idle("data_max_length", model.uses("dilated"), "which has no dilated keys");
  idle("norm_mode", sparse, "there is no sparse branch");
  idle("gate_loss_weight", model.uses("key_selection"), "which has no ranking loss");
}

}  // namespace hax
