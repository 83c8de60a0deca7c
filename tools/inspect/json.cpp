#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tools/inspect/text.h"

namespace hax::inspect {
namespace {

using Json = nlohmann::json;

// JSON has no NaN and no infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
// For pictures: four digits are more than an eye tells apart.
Json short_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == 0) return 0;
  const double scale = std::pow(10.0, 3 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

Json shape_json(const Shape& shape) {
  Json sizes = Json::array();
  for (int axis = 0; axis < shape.rank(); ++axis) sizes.push_back(shape[axis]);
  return sizes;
}

Json stats_json(const NumberStats& stats) {
  return {{"count", stats.count},        {"zeros", stats.zeros},     {"nan", stats.nan},
          {"infinite", stats.infinite},  {"min", number(stats.min)}, {"max", number(stats.max)},
          {"mean", number(stats.mean)},  {"std", number(stats.std)}, {"norm", number(stats.norm)},
          {"histogram", stats.histogram}};
}

Json tensor_json(const InspectedTensor& tensor) {
  Json json{{"shape", shape_json(tensor.shape)},
            {"dtype", name_of(tensor.dtype)},
            {"bytes", tensor.bytes()},
            {"value", stats_json(tensor.value)}};
  if (tensor.gradient) json["gradient"] = stats_json(*tensor.gradient);
  return json;
}

Json op_json(const InspectedOp& op) {
  Json inputs = Json::array(), outputs = Json::array();
  for (const InspectedInput& input : op.inputs) {
    Json json{{"shape", shape_json(input.shape)}};
    if (input.op >= 0) {
      json["op"] = input.op;
      json["output"] = input.output;
    }
    if (!input.parameter.empty()) json["parameter"] = input.parameter;
    if (input.gradient_norm >= 0) json["gradient_norm"] = number(input.gradient_norm);
    inputs.push_back(json);
  }
  for (const InspectedTensor& output : op.outputs) outputs.push_back(tensor_json(output));
  Json json{{"op", op.op},      {"scope", op.scope},  {"recorded", op.recorded},
            {"inputs", inputs}, {"outputs", outputs}, {"forward_s", op.forward_s}};
  if (op.backward_order >= 0) {
    json["backward_s"] = op.backward_s;
    json["backward_order"] = op.backward_order;
  }
  return json;
}

Json attention_json(const AttentionPicture& picture) {
  Json queries = Json::array();
  for (const std::vector<AttendedKey>& keys : picture.queries) {
    Json list = Json::array();  // key, weight, key, weight, ...
    for (const AttendedKey& key : keys) {
      list.push_back(key.key);
      list.push_back(std::round(key.weight * 1e4) / 1e4);
    }
    queries.push_back(list);
  }
  Json json{{"layer", picture.layer},
            {"sample", picture.sample},
            {"op", picture.op},
            {"queries", queries}};
  if (!picture.query_bin.empty()) {
    // Bins as text: 62 bits are more than a number of JavaScript holds.
    for (const auto& [name, bins] :
         {std::pair{"query_bin", &picture.query_bin}, std::pair{"key_bin", &picture.key_bin}}) {
      Json list = Json::array();
      for (const std::int64_t bin : *bins) list.push_back(std::to_string(bin));
      json[name] = list;
    }
  }
  for (const double score : picture.key_score) json["key_score"].push_back(number(score));
  return json;
}

Json memory_json(const MemoryPicture& picture) {
  const auto list = [](const auto& numbers) {
    Json json = Json::array();
    for (const double x : numbers) json.push_back(short_number(x));
    return json;
  };
  Json kept = Json::array();
  for (const std::vector<float>& row : picture.kept) kept.push_back(list(row));
  return {{"layer", picture.layer},
          {"sample", picture.sample},
          {"op", picture.op},
          {"dt_least", list(picture.dt_least)},
          {"dt_mean", list(picture.dt_mean)},
          {"dt_most", list(picture.dt_most)},
          {"state_norm", list(picture.state_norm)},
          {"kept", kept}};
}

}  // namespace

std::string to_json(const Inspection& inspection, const std::string& title,
                    const TokenLabel& label) {
  Json json{{"title", title},
            {"model", Json::parse(hax::to_json(inspection.config))},
            {"lm_loss", number(inspection.lm_loss)},
            {"gate_loss", number(inspection.gate_loss)},
            {"gate_loss_weight", inspection.gate_loss_weight},
            {"loss", number(inspection.loss)},
            {"accuracy", number(inspection.accuracy)},
            {"lr", inspection.lr},
            {"most_tokens", Inspection::kMostTokens}};
  json["ops"] = Json::array();
  std::set<std::string> names;
  for (const InspectedOp& op : inspection.ops) {
    json["ops"].push_back(op_json(op));
    names.insert(op.op);
  }
  json["formulas"] = Json::object();
  for (const std::string& name : names) json["formulas"][name] = formula_of(name);
  json["parameters"] = Json::array();
  for (const InspectedParameter& parameter : inspection.parameters) {
    Json entry = tensor_json(parameter.tensor);
    entry["name"] = parameter.name;
    entry["update_ratio"] = number(parameter.update_ratio);
    json["parameters"].push_back(entry);
  }
  json["samples"] = Json::array();
  for (std::size_t s = 0; s < inspection.samples.size(); ++s) {
    Json tokens = Json::array(), labels = Json::array();
    for (const std::int32_t token : inspection.samples[s]) {
      tokens.push_back(token);
      labels.push_back(label(token));
    }
    json["samples"].push_back({{"tokens", tokens}, {"labels", labels}});
  }
  json["targets"] = Json::array();
  for (const InspectedTarget& target : inspection.targets) {
    json["targets"].push_back({{"sample", target.sample},
                               {"position", target.position},
                               {"label", label(target.label)},
                               {"predicted", label(target.predicted)},
                               {"probability", number(target.probability)},
                               {"answer", target.answer}});
  }
  json["attention"] = Json::array();
  for (const AttentionPicture& picture : inspection.attention) {
    json["attention"].push_back(attention_json(picture));
  }
  json["memory"] = Json::array();
  for (const MemoryPicture& picture : inspection.memory) {
    json["memory"].push_back(memory_json(picture));
  }
  return json.dump() + "\n";
}

}  // namespace hax::inspect
