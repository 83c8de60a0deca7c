#include "train/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/files.h"
#include "engine/safetensors.h"

namespace hax {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

fs::path beside(const fs::path& folder, const char* suffix) {
  return folder.parent_path() / (folder.filename().string() + suffix);
}

void remove_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  check(!error, "cannot remove {}: {}", folder.string(), error.message());
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  check(!error, "cannot rename {} to {}: {}", from.string(), to.string(), error.message());
}

// Puts the finished folder `fresh` in the place of `folder`: in one atomic exchange where the file
// system can, else over folder.old, which existing_checkpoint() knows to look for.
void replace_folder(const fs::path& fresh, const fs::path& folder) {
  if (!fs::exists(folder)) {
    rename_folder(fresh, folder);
    remove_folder(beside(folder, ".old"));
    return;
  }
#ifdef RENAME_EXCHANGE
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) {
    remove_folder(fresh);
    return;
  }
#endif
  const fs::path old = beside(folder, ".old");
  remove_folder(old);
  rename_folder(folder, old);
  rename_folder(fresh, folder);
  remove_folder(old);
}

// Runs write(folder.new) and puts the result in place; a failure leaves the old checkpoint as it
// was.
template <class F>
void write_folder(const fs::path& folder, F&& write) {
  const fs::path fresh = beside(folder, ".new");
  try {
    remove_folder(fresh);
    make_directories(fresh);
    write(fresh);
    replace_folder(fresh, folder);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    throw;
  }
}

SafeTensors named(const Parameters& anywhere) {
  const Parameters parameters = anywhere.to(kCpu);
  SafeTensors file;
  file.metadata["format"] = "pt";  // what other readers of the format expect to see
  for (std::size_t i = 0; i < parameters.specs().size(); ++i) {
    file.tensors[parameters.specs()[i].name] = parameters.view(i);
  }
  return file;
}

void write_model(const fs::path& folder, const Model& model, const Parameters& parameters) {
  write_safetensors(folder / "model.safetensors", named(parameters));
  write_file_atomically(folder / "config.json", to_json(model.config()));
}

// Copies every tensor called prefix + name into `parameters`.
void read_parameters(const fs::path& path, const SafeTensors& file, const std::string& prefix,
                     Parameters& parameters) {
  for (std::size_t i = 0; i < parameters.specs().size(); ++i) {
    const ParamSpec& spec = parameters.specs()[i];
    const auto found = file.tensors.find(prefix + spec.name);
    check(found != file.tensors.end(), "{}: tensor '{}' is missing; config.json asks for it",
          path.string(), prefix + spec.name);
    check(found->second.shape() == spec.shape, "{}: tensor '{}' is {}, config.json asks for {}",
          path.string(), prefix + spec.name, found->second.shape(), spec.shape);
    check(is_floating(found->second.dtype()), "{}: tensor '{}' is {}, expected float32",
          path.string(), prefix + spec.name, name_of(found->second.dtype()));
    Tensor target = parameters.view(i);
    copy(target, found->second.to(target.dtype()));
  }
}

void refuse_surplus(const fs::path& path, const SafeTensors& file, const Parameters& parameters) {
  for (const auto& [name, tensor] : file.tensors) {
    check(parameters.find(name).defined(), "{}: tensor '{}' belongs to no parameter of config.json",
          path.string(), name);
  }
}

LoadedModel load_folder(const fs::path& folder, const fs::path& weights, Device device = kCpu) {
  const fs::path config = folder / "config.json";
  LoadedModel loaded;
  loaded.folder = folder;
  loaded.model = std::make_unique<Model>(parse_config(read_file(config), config.string()));
  loaded.parameters =
      std::make_unique<Parameters>(loaded.model->parameters(), DType::float32, device);
  const SafeTensors file = read_safetensors(weights);
  read_parameters(weights, file, "", *loaded.parameters);
  refuse_surplus(weights, file, *loaded.parameters);
  return loaded;
}

template <class T>
T field(const Json& json, const char* key, const fs::path& path) {
  const auto found = json.find(key);
  check(found != json.end() && found->is_number(), "{}: '{}' is missing or not a number",
        path.string(), key);
  return found->get<T>();
}

}  // namespace

fs::path existing_checkpoint(const fs::path& folder) {
  const fs::path old = beside(folder, ".old");
  return !fs::exists(folder) && fs::exists(old) ? old : folder;
}

void save_model(const fs::path& folder, const Model& model, const Parameters& parameters) {
  write_folder(folder, [&](const fs::path& fresh) { write_model(fresh, model, parameters); });
}

void save_run(const fs::path& folder, const Model& model, const Parameters& parameters,
              const AdamW& optimizer, const RunState& state) {
  write_folder(folder, [&](const fs::path& fresh) {
    write_model(fresh, model, parameters);
    SafeTensors moments;
    for (const auto& [name, tensor] : named(optimizer.first_moments()).tensors) {
      moments.tensors["m." + name] = tensor;
    }
    for (const auto& [name, tensor] : named(optimizer.second_moments()).tensors) {
      moments.tensors["v." + name] = tensor;
    }
    write_safetensors(fresh / "optimizer.safetensors", moments);
    const Json json{{"step", state.step},
                    {"best_accuracy", state.best_accuracy},
                    {"best_step", state.best_step},
                    {"validated_step", state.validated_step}};
    write_file_atomically(fresh / "state.json", json.dump(2) + "\n");
  });
}

LoadedModel load_model(const fs::path& path, Device device) {
  check(fs::exists(path) || fs::exists(existing_checkpoint(path)),
        "checkpoint {} does not exist; give a run folder, a checkpoint folder or a "
        "model.safetensors file",
        path.string());
  if (fs::is_regular_file(path)) return load_folder(path.parent_path(), path, device);
  for (const fs::path& folder : {path, path / "best", path / "last"}) {
    const fs::path found = existing_checkpoint(folder);
    if (fs::exists(found / "model.safetensors")) {
      return load_folder(found, found / "model.safetensors", device);
    }
  }
  throw Error(fmt::format(
      "{} holds no checkpoint: expected model.safetensors, best/ or last/ in it", path.string()));
}

RunState load_run(const fs::path& folder, const Model& model, Parameters& parameters,
                  AdamW& optimizer) {
  const fs::path found = existing_checkpoint(folder);
  const LoadedModel loaded = load_folder(found, found / "model.safetensors");
  check(to_json(loaded.model->config()) == to_json(model.config()),
        "{}: config.json is of another model than this run's", found.string());
  copy(parameters.flat(), loaded.parameters->flat());

  const fs::path moments_path = found / "optimizer.safetensors";
  const SafeTensors moments = read_safetensors(moments_path);
  read_parameters(moments_path, moments, "m.", optimizer.first_moments());
  read_parameters(moments_path, moments, "v.", optimizer.second_moments());

  const fs::path state_path = found / "state.json";
  try {
    const Json json = Json::parse(read_file(state_path));
    RunState state;
    state.step = field<std::int64_t>(json, "step", state_path);
    state.best_accuracy = field<double>(json, "best_accuracy", state_path);
    state.best_step = field<std::int64_t>(json, "best_step", state_path);
    state.validated_step = field<std::int64_t>(json, "validated_step", state_path);
    check(state.step >= 0, "{}: step is {}, expected a count", state_path.string(), state.step);
    return state;
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{}: not valid JSON: {}", state_path.string(), error.what()));
  }
}

}  // namespace hax
