#include "train/run_costs.h"

#include <nlohmann/json.hpp>

#include "engine/files.h"

namespace hax {

using Json = nlohmann::json;

RunCosts read_costs(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return {};
  try {
    const Json json = Json::parse(read_file(path.string()));
    return {json.at("steps").get<std::int64_t>(), json.at("tokens").get<std::int64_t>(),
            json.at("seconds").get<double>(), json.at("evaluation_seconds").get<double>(),
            json.at("peak_bytes").get<std::int64_t>()};
  } catch (const Json::exception&) {
    return {};
  }
}

void write_costs(const std::filesystem::path& path, const RunCosts& costs) {
  const Json json{{"steps", costs.steps},
                  {"tokens", costs.tokens},
                  {"seconds", costs.seconds},
                  {"evaluation_seconds", costs.evaluation_seconds},
                  {"peak_bytes", costs.peak_bytes}};
  write_file_atomically(path.string(), json.dump(2) + "\n");
}

}  // namespace hax
