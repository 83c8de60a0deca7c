#include "train/options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/check.h"
#include "engine/device.h"
#include "engine/files.h"
#include "models/architectures.h"
#include "train/embedded_recipes.h"

namespace hax {

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
       &O::sparse_keys},
      {"num_hash", "hash columns (8 for sign_bin_lsh, sparse_keys for argmax_lsh)", &O::num_hash},
      {"data_max_length", "dilation is this over the keys of the dilated pattern (2048)",
       &O::data_max_length},
      {"norm_mode", "causal (the default), or released: as in the released code", &O::norm_mode},
      {"lsh_center", "causal, sequence or none; by default the norm mode's", &O::lsh_center},
      {"contexts", "a:b contexts (streamed task); default 5:16", &O::contexts},
      {"keys", "a:b keys (streamed task); default 5:16", &O::keys},
      {"values", "number of values V (streamed task)", &O::values},
      {"levels", "context levels w: 1 associative recall, 2 joint recall, 3 and more", &O::levels},
      {"data_dir", "dataset folder of `hax data generate`; without it samples are streamed",
       &O::data_dir},
      {"save_dir", "run folder to create", &O::save_dir},
      {"valid_samples", "validation samples; 0: 1,440 streamed, or the whole file",
       &O::valid_samples},
      {"test_samples", "test samples; 0: 1,440 streamed, or the whole file", &O::test_samples},
      {"lr", "learning rate after warm-up", &O::lr},
      {"gate_loss_weight", "weight of the ranking loss", &O::gate_loss_weight},
      {"step", "optimiser steps", &O::step},
      {"warmup_step", "steps of linear warm-up", &O::warmup_step},
      {"valid_step", "steps between validations", &O::valid_step},
      {"bsz", "sequences a micro-batch", &O::bsz},
      {"grad_acc", "micro-batches an optimiser step", &O::grad_acc},
      {"clip_norm", "clip the gradient's norm to this; 0: off", &O::clip_norm},
      {"weight_decay", "AdamW's decoupled weight decay", &O::weight_decay},
      {"beta1", "AdamW", &O::beta1},
      {"beta2", "AdamW", &O::beta2},
      {"adam_eps", "AdamW", &O::adam_eps},
      {"seed", "of initial weights, hashes, candidates and streamed samples", &O::seed},
      {"log_step", "steps between lines of metrics.jsonl", &O::log_step},
      {"shards", "pieces a batch is cut into for threads, 1 to 8; part of the arithmetic",
       &O::shards},
      {"device", "cpu (or cuda in a build with it)", &O::device},
      {"threads", "threads; 0: one a core. Never changes a result", &O::threads},
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
  const auto within = [](const char* name, std::int64_t value, std::int64_t low,
                         std::int64_t high) {
    check_usage(value >= low && value <= high, "--{} {}: expected an integer from {} to {}", name,
                value, low, high);
  };
  const auto number = [](const char* name, double value, bool ok, const char* expected) {
    check_usage(std::isfinite(value) && ok, "--{} {}: expected {}", name, value, expected);
  };
  constexpr std::int64_t kMillion = 1'000'000, kSteps = 4'000'000'000;
  within("sparse_keys", sparse_keys, 0, kMillion);
  within("num_hash", num_hash, 0, kMillion);
  within("data_max_length", data_max_length, 0, 1 << 30);
  within("values", values, 1, kMillion);
  within("levels", levels, 1, 16);
  within("valid_samples", valid_samples, 0, 1000 * kMillion);
  within("test_samples", test_samples, 0, 1000 * kMillion);
  number("lr", lr, lr > 0 && lr <= 10, "a learning rate above 0, at most 10");
  number("gate_loss_weight", gate_loss_weight, gate_loss_weight >= 0, "a number from 0");
  within("step", step, 1, kSteps);
  within("warmup_step", warmup_step, 0, kSteps);
  within("valid_step", valid_step, 1, kSteps);
  within("bsz", bsz, 1, kMillion);
  within("grad_acc", grad_acc, 1, kMillion);
  number("clip_norm", clip_norm, clip_norm >= 0, "a number from 0");
  number("weight_decay", weight_decay, weight_decay >= 0 && weight_decay <= 1,
         "a number from 0 to 1");
  number("beta1", beta1, beta1 >= 0 && beta1 < 1, "a number from 0, below 1");
  number("beta2", beta2, beta2 >= 0 && beta2 < 1, "a number from 0, below 1");
  number("adam_eps", adam_eps, adam_eps > 0, "a positive number");
  within("seed", seed, 0, INT64_MAX);
  within("log_step", log_step, 1, kSteps);
  within("shards", shards, 1, 8);
  within("threads", threads, 0, 1024);
  check_usage(bsz * grad_acc <= INT64_MAX / kSteps,
              "--bsz {} x --grad_acc {}: too many sequences a step", bsz, grad_acc);
  check_usage(parse_device(device).is_cpu(),
              "--device {}: training does not run there yet; use --device cpu", device);
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

}  // namespace hax
