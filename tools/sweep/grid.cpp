#include "tools/sweep/grid.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/check.h"
#include "models/architectures.h"
#include "tools/data_flags.h"
#include "train/task.h"

namespace hax {
namespace {

// Keeps the order of the file: the order of runs follows from it.
using Json = nlohmann::ordered_json;

struct Dimension {
  std::string setting;
  std::vector<Json> values;
};

std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// What the sweep itself decides for each run.
void refuse_own_settings(const std::string& source, const std::string& name) {
  for (const char* own : {"save_dir", "device", "threads"}) {
    check_usage(name != own, "{}: the sweep chooses {} itself", source, name);
  }
}

Json architecture(const Json& entry, const std::string& source) {
  if (entry.is_object()) return entry;
  check_usage(entry.is_string(), "{}: architecture {}: expected BASE, BASE+SPARSE or settings",
              source, entry.dump());
  const std::string text = entry.get<std::string>();
  const std::size_t plus = text.find('+');
  const std::string base = text.substr(0, plus);
  const std::string sparse = plus == text.npos ? "none" : text.substr(plus + 1);
  const auto known = [&](const char* what, const std::string& name,
                         const std::vector<std::string>& names) {
    check_usage(std::ranges::count(names, name) != 0, "{}: architecture '{}': unknown {} '{}'{}",
                source, text, what, name, suggest(name, names));
  };
  known("base_arch", base, base_arch_names());
  known("sparse_arch", sparse, sparse_arch_names());
  return Json{{"base_arch", base}, {"sparse_arch", sparse}};
}

std::string architecture_name(const Json& entry) {
  if (entry.is_string()) return entry.get<std::string>();
  std::string name;
  for (const auto& [key, value] : entry.items()) {
    name += (name.empty() ? "" : ",") + key + "=" + plain(value);
  }
  return name;
}

const Json& member(const Json& json, const char* name, const Json& otherwise) {
  const auto found = json.find(name);
  return found == json.end() ? otherwise : *found;
}

// Slowest first; the seed before all others.
std::vector<Dimension> dimensions(const Json& grid, const std::string& source) {
  std::vector<Dimension> found;
  for (const auto& [setting, values] : grid.items()) {
    refuse_own_settings(source, setting);
    check_usage(values.is_array() && !values.empty(), "{}: grid: {} is {}, expected [values]",
                source, setting, values.dump());
    found.push_back({setting, values.get<std::vector<Json>>()});
  }
  std::ranges::stable_partition(found, [](const Dimension& d) { return d.setting == "seed"; });
  return found;
}

// Everything that can be known to be wrong before a run starts; a dataset folder may come later.
void validate(const TrainOptions& options) {
  options.validate();
  options.model_config(options.data_dir.empty() ? open_task(options)->vocab_size() : 0);
}

std::string folder_name(std::string name) {
  std::ranges::replace(name, '/', '_');
  return name;
}

void add_setting(Json& settings, const std::string& name, const Json& value,
                 const std::string& source) {
  refuse_own_settings(source, name);
  settings[name] = value;
}

SweepRun make_run(const Json& settings, const std::string& name, const std::string& source) {
  SweepRun run{.name = folder_name(name), .recipe = settings.dump(1) + "\n", .options = {}};
  apply_recipe(run.recipe, source, run.options);
  try {
    validate(run.options);
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}: run {}: {}", source, name, error.what()));
  }
  return run;
}

Json parse(std::string_view text, const std::string& source) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    throw UsageError(fmt::format("{}: not valid JSON: {}", source, error.what()));
  }
  check_usage(json.is_object(), "{}: expected a JSON object", source);
  const std::vector<std::string> known{"about", "architectures", "settings", "grid"};
  for (const auto& [key, value] : json.items()) {
    check_usage(std::ranges::count(known, key) != 0, "{}: unknown key '{}'{}", source, key,
                suggest(key, known));
  }
  const auto list = json.find("architectures");
  check_usage(list != json.end() && list->is_array() && !list->empty(),
              "{}: \"architectures\" is missing: [\"mamba\", \"mamba+key_selection\", ...]",
              source);
  for (const char* name : {"settings", "grid"}) {
    check_usage(!json.contains(name) || json[name].is_object(), "{}: {} is {}, expected an object",
                source, name, member(json, name, {}).dump());
  }
  return json;
}

}  // namespace

Grid parse_grid(std::string_view text, const std::string& source) {
  const Json json = parse(text, source), none = Json::object();
  const std::vector<Dimension> all = dimensions(member(json, "grid", none), source);
  Grid grid{.text = json.dump(), .runs = {}};
  std::vector<std::size_t> at(all.size(), 0);
  std::set<std::string> names;
  for (bool more = true; more;) {
    for (const Json& entry : json["architectures"]) {
      Json settings = none;
      std::string name = architecture_name(entry);
      for (const auto& [key, value] : member(json, "settings", none).items()) {
        add_setting(settings, key, value, source);
      }
      const Json own = architecture(entry, source);
      for (const auto& [key, value] : own.items()) {
        add_setting(settings, key, value, source);
      }
      for (std::size_t d = all.size(); d-- > 0;) {
        settings[all[d].setting] = all[d].values[at[d]];
        name += fmt::format(",{}={}", all[d].setting, plain(all[d].values[at[d]]));
      }
      SweepRun run = make_run(settings, name, source);
      check_usage(names.insert(run.name).second, "{}: run {} is there twice", source, name);
      grid.runs.push_back(std::move(run));
    }
    std::size_t d = all.size();
    while (d > 0 && ++at[d - 1] == all[d - 1].values.size()) at[--d] = 0;
    more = d > 0;
  }
  return grid;
}

std::vector<SweepRun> share_of(const std::vector<SweepRun>& runs, const std::string& only) {
  if (only.empty()) return runs;
  const std::size_t slash = only.find('/');
  check_usage(slash != only.npos, "--only '{}': expected i/n, as in 1/4", only);
  const auto count = parse_number<std::size_t>(only.substr(slash + 1), "--only i/n", 1, 1'000'000);
  const auto first = parse_number<std::size_t>(only.substr(0, slash), "--only i/n", 1, count);
  std::vector<SweepRun> share;
  for (std::size_t i = first - 1; i < runs.size(); i += count) share.push_back(runs[i]);
  return share;
}

}  // namespace hax
