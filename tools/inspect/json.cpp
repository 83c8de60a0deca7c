#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "tools/inspect/pack.h"
#include "tools/inspect/text.h"

namespace hax::inspect {
namespace {

using Json = nlohmann::json;

// JSON has no NaN and no infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
// As many digits as are worth their place.
Json short_number(double value, int digits) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.{}g}", value, digits).c_str(), nullptr);
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

// Weights alone where every key up to the query is seen, else after each key.
std::string packed(const std::vector<AttendedKey>& keys, std::size_t query) {
  const bool all = keys.size() == query + 1;
  std::string text(all ? "*" : "");
  for (const AttendedKey& key : keys) {
    if (!all) pack_number(key.key, kKeyDigits, text);
    pack_share(key.weight, kLeastWeight, kWeightDigits, text);
  }
  return text;
}

std::string packed(const std::vector<float>& kept) {
  std::string text;
  for (const float share : kept) {
    pack_share(share, MemoryPicture::kForgotten, kKeptDigits, text);
  }
  return text;
}

Json attention_frame(const AttentionPicture& picture) {
  Json json{{"layer", picture.layer}, {"sample", picture.sample}, {"op", picture.op}};
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

Json attention_json(const AttentionPicture& picture) {
  Json json = attention_frame(picture);
  json["queries"] = Json::array();
  for (const std::vector<AttendedKey>& keys : picture.queries) {
    Json list = Json::array();  // key, weight, key, weight, ...
    for (const AttendedKey& key : keys) {
      list.push_back(key.key);
      list.push_back(short_number(key.weight, 7));
    }
    json["queries"].push_back(list);
  }
  return json;
}

Json memory_frame(const MemoryPicture& picture, int digits) {
  Json json{{"layer", picture.layer}, {"sample", picture.sample}, {"op", picture.op}};
  for (const auto& [name, numbers] :
       {std::pair{"dt_least", &picture.dt_least}, std::pair{"dt_mean", &picture.dt_mean},
        std::pair{"dt_most", &picture.dt_most}, std::pair{"state_norm", &picture.state_norm}}) {
    json[name] = Json::array();
    for (const double x : *numbers) json[name].push_back(short_number(x, digits));
  }
  return json;
}

Json memory_json(const MemoryPicture& picture) {
  Json json = memory_frame(picture, 9);
  json["kept"] = Json::array();
  for (const std::vector<float>& row : picture.kept) {
    Json list = Json::array();
    for (const float x : row) list.push_back(short_number(x, 7));
    json["kept"].push_back(list);
  }
  return json;
}

Json page_frame(const MemoryPicture& picture) {
  Json json = memory_frame(picture, 4);
  json["reach"] = Json::array();  // of how many tokens a tenth or more is left
  for (const std::vector<float>& row : picture.kept) {
    json["reach"].push_back(std::ranges::count_if(row, [](float x) { return x >= 0.1F; }));
  }
  return json;
}

// A picture of a page: what is written of it anyway, and its rows.
struct Packed {
  Json frame;
  std::vector<std::string> rows;
  std::vector<std::size_t> asked;  // rows of queries that ask for an answer
};

Packed packed(const Inspection& inspection, const AttentionPicture& picture) {
  Packed page{attention_frame(picture), {}, {}};
  for (std::size_t i = 0; i < picture.queries.size(); ++i) {
    page.rows.push_back(packed(picture.queries[i], i));
  }
  for (const InspectedTarget& target : inspection.targets) {
    const auto position = static_cast<std::size_t>(target.position);
    if (target.sample == picture.sample && position < page.rows.size()) {
      page.asked.push_back(position);
    }
  }
  return page;
}

Packed packed(const MemoryPicture& picture) {
  Packed page{page_frame(picture), {}, {}};
  for (const std::vector<float>& row : picture.kept) page.rows.push_back(packed(row));
  return page;
}

// Which rows go in: one in `stride`, and of those that ask one in `asked`.
struct Thinning {
  std::size_t stride, asked;
};
constexpr Thinning kThinnings[] = {{1, 1},  {2, 1},   {3, 1},    {4, 1},      {6, 1},
                                   {8, 1},  {12, 1},  {16, 1},   {16, 2},     {32, 2},
                                   {32, 4}, {64, 16}, {256, 64}, {2048, 2048}};

std::vector<bool> rows_in(const Packed& picture, const Thinning& thinning) {
  std::vector<bool> in(picture.rows.size());
  for (std::size_t i = 0; i < in.size(); i += thinning.stride) in[i] = true;
  for (std::size_t i = 0; i < picture.asked.size(); i += thinning.asked) {
    in[picture.asked[i]] = true;
  }
  return in;
}

std::size_t bytes_of(const std::vector<Packed>& pictures, const Thinning& thinning) {
  std::size_t bytes = 0;
  for (const Packed& picture : pictures) {
    const std::vector<bool> in = rows_in(picture, thinning);
    for (std::size_t i = 0; i < in.size(); ++i) bytes += in[i] ? picture.rows[i].size() + 3 : 5;
  }
  return bytes;
}

Json thinned(const std::vector<Packed>& pictures, const Thinning& thinning) {
  Json list = Json::array();
  for (const Packed& picture : pictures) {
    const std::vector<bool> in = rows_in(picture, thinning);
    Json json = picture.frame, rows = Json::array();
    for (std::size_t i = 0; i < in.size(); ++i) {
      rows.push_back(in[i] ? Json(picture.rows[i]) : Json(nullptr));
    }
    json["packed"] = std::move(rows);
    list.push_back(std::move(json));
  }
  return list;
}

// All but the pictures.
Json frame_json(const Inspection& inspection, const std::string& title, const TokenLabel& label) {
  Json json{{"title", title},
            {"model", Json::parse(hax::to_json(inspection.config))},
            {"lm_loss", number(inspection.lm_loss)},
            {"gate_loss", number(inspection.gate_loss)},
            {"gate_loss_weight", inspection.gate_loss_weight},
            {"loss", number(inspection.loss)},
            {"accuracy", number(inspection.accuracy)},
            {"lr", inspection.lr},
            {"update_step", inspection.update_step}};
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
  json["memory"] = Json::array();
  return json;
}

}  // namespace

std::string to_json(const Inspection& inspection, const std::string& title,
                    const TokenLabel& label) {
  Json json = frame_json(inspection, title, label);
  for (const AttentionPicture& picture : inspection.attention) {
    json["attention"].push_back(attention_json(picture));
  }
  for (const MemoryPicture& picture : inspection.memory) {
    json["memory"].push_back(memory_json(picture));
  }
  return json.dump() + "\n";
}

std::string to_page_json(const Inspection& inspection, const std::string& title,
                         const TokenLabel& label, std::size_t most_bytes) {
  Json json = frame_json(inspection, title, label);
  std::vector<Packed> attention, memory;
  std::size_t bytes = json.dump().size() + 100;
  for (const AttentionPicture& picture : inspection.attention) {
    bytes += attention.emplace_back(packed(inspection, picture)).frame.dump().size() + 15;
  }
  for (const MemoryPicture& picture : inspection.memory) {
    bytes += memory.emplace_back(packed(picture)).frame.dump().size() + 15;
  }
  Thinning thinning{};
  for (const Thinning& next : kThinnings) {
    thinning = next;
    if (bytes + bytes_of(attention, next) + bytes_of(memory, next) <= most_bytes) break;
  }
  json["attention"] = thinned(attention, thinning);
  json["memory"] = thinned(memory, thinning);
  json["row_stride"] = thinning.stride;
  json["asked_stride"] = thinning.asked;
  json["pictures_left_out"] = 0;
  std::string text = json.dump();
  // Thinned to nothing, and still too much: fewer pictures.
  for (int left_out = 0; text.size() > most_bytes; text = json.dump()) {
    Json& list =
        json["attention"].size() > json["memory"].size() ? json["attention"] : json["memory"];
    if (list.empty()) break;
    list.erase(list.size() - 1);
    json["pictures_left_out"] = ++left_out;
  }
  return text;
}

}  // namespace hax::inspect
