#include "tools/report/runs.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/check.h"
#include "engine/files.h"
#include "train/trainer.h"

namespace hax::results {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Calls read(json) on what a file holds; a file that does not fit is named. False: no such file.
template <class F>
bool read_json(const fs::path& path, F&& read) {
  if (!fs::exists(path)) return false;
  try {
    read(Json::parse(read_file(path.string())));
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{}: damaged: {}", path.string(), error.what()));
  }
  return true;
}

Result parse_result(const Json& json) {
  Result result;
  json.at("parameters").get_to(result.parameters);
  json.at("step").get_to(result.step);
  json.at("best_step").get_to(result.best_step);
  json.at("test_samples").get_to(result.test_samples);
  json.at("valid_accuracy").get_to(result.valid_accuracy);
  json.at("test_accuracy").get_to(result.test_accuracy);
  return result;
}

void parse_breakdown(const Json& json, Run& run) {
  for (const Json& cell : json.at("by_size")) {
    run.sizes.push_back(
        {cell.at("contexts").get<std::int64_t>(), cell.at("keys").get<std::int64_t>(),
         cell.at("samples").get<std::int64_t>(), cell.at("accuracy").get<double>()});
  }
  for (const Json& part : json.at("by_distance")) {
    run.distances.push_back(
        {part.at("from").get<std::int64_t>(), part.at("below").get<std::int64_t>(),
         part.at("targets").get<std::int64_t>(), part.at("accuracy").get<double>()});
  }
}

// A run that is being written, or was killed, has a torn last line: lines that do not parse count
// for nothing.
void parse_metrics(const std::string& text, Run& run) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    const auto step = json["step"].get<std::int64_t>();
    run.step = std::max(run.step, step);
    if (json.contains("valid_accuracy") && json["valid_accuracy"].is_number()) {
      run.curve.push_back({step, json["valid_accuracy"].get<double>()});
    }
  }
}

}  // namespace

Run read_run(const fs::path& folder) {
  Run run;
  run.folder = folder;
  run.options = options_of_run(folder);
  read_json(folder / "task.json", [&](const Json& json) { json.at("task").get_to(run.task); });
  read_json(folder / "result.json", [&](const Json& json) {
    Result result = parse_result(json);
    // A run that was extended has the result of its shorter form until it ends.
    if (result.step >= run.options.step) run.result = result;
  });
  if (run.finished()) {
    read_json(folder / "breakdown.json", [&](const Json& json) { parse_breakdown(json, run); });
  }
  const fs::path metrics = folder / "metrics.jsonl";
  if (fs::exists(metrics)) parse_metrics(read_file(metrics.string()), run);
  run.costs = read_costs(folder / "costs.json");
  return run;
}

std::vector<fs::path> find_runs(const fs::path& root) {
  check(fs::is_directory(root), "{} is not a folder", root.string());
  const auto is_run = [](const fs::path& folder) { return fs::exists(folder / "recipe.json"); };
  std::vector<fs::path> runs;
  if (is_run(root)) runs.push_back(root);
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_directory() && is_run(entry.path())) runs.push_back(entry.path());
  }
  check(!runs.empty(), "{} holds no run folder (one with a recipe.json)", root.string());
  std::ranges::sort(runs);
  return runs;
}

}  // namespace hax::results
