#include "tools/report/rows.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/check.h"
#include "models/architectures.h"
#include "tools/report/embedded_report.h"

namespace hax::results {
namespace {

using Json = nlohmann::json;

// What makes a row: every setting but those that runs of one row may differ in.
Json row_key(const TrainOptions& options) {
  Json key = Json::parse(to_json(options));
  if (options.sparse_arch.empty()) key["sparse_arch"] = "none";
  for (const char* name : {"lr", "seed", "save_dir", "threads", "device", "log_step"}) {
    key.erase(name);
  }
  return key;
}

template <class Entry>
std::size_t place(std::span<const Entry> entries, std::string_view name) {
  const auto found = std::ranges::find_if(entries, [&](const Entry& e) { return e.name == name; });
  return static_cast<std::size_t>(found - entries.begin());
}

template <class Entry>
std::string paper_name(std::span<const Entry> entries, std::string_view name) {
  const std::size_t at = place(entries, name);
  return std::string(at < entries.size() && !entries[at].paper.empty() ? entries[at].paper : name);
}

std::string title_of(const Row& row, const std::string& config) {
  std::string title = config.empty() ? paper_name(base_archs(), row.base) : config;
  if (row.sparse != "none") title += " + " + paper_name(sparse_archs(), row.sparse);
  return title;
}

std::optional<double> paper_accuracy(const std::string& base, const std::string& sparse) {
  const Json table = Json::parse(report_text("paper_table3"));
  for (const Json& row : table.at("rows")) {
    if (row.at("base_arch") == base && row.at("sparse_arch") == sparse) {
      return row.at("accuracy").get<double>();
    }
  }
  return std::nullopt;
}

double mean_of(const std::vector<Run>& runs, double Result::*member) {
  double sum = 0;
  for (const Run& run : runs) sum += (*run.result).*member;
  return sum / static_cast<double>(runs.size());
}

// The runs at the best rate. More finished runs go before better ones: a mean over fewer seeds is
// no fair rival.
std::vector<Run> at_best_rate(const std::vector<Run>& runs) {
  std::map<double, std::vector<Run>> rates;
  for (const Run& run : runs) {
    if (run.finished()) rates[run.options.lr].push_back(run);
  }
  const std::vector<Run>* best = nullptr;
  for (const auto& [lr, group] : rates) {
    const auto better = [&] {
      if (group.size() != best->size()) return group.size() > best->size();
      return mean_of(group, &Result::valid_accuracy) > mean_of(*best, &Result::valid_accuracy);
    };
    if (best == nullptr || better()) best = &group;
  }
  return best == nullptr ? std::vector<Run>{} : *best;
}

// ", sparse_keys 32": the settings in which a row differs from others of its architecture.
std::string distinction(const Json& key, const std::vector<const Json*>& siblings) {
  std::string text;
  for (const auto& [name, value] : key.items()) {
    const bool varies =
        std::ranges::any_of(siblings, [&](const Json* other) { return (*other)[name] != value; });
    if (!varies) continue;
    text +=
        fmt::format(", {} {}", name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

}  // namespace

std::string_view report_text(std::string_view name) {
  for (const EmbeddedText& text : embedded_report()) {
    if (text.name == name) return text.text;
  }
  throw Error(fmt::format("the report has no text '{}'", name));
}

double Row::valid() const { return mean_of(runs, &Result::valid_accuracy); }
double Row::test() const { return mean_of(runs, &Result::test_accuracy); }

std::optional<double> Row::spread() const {
  if (runs.size() < 2) return std::nullopt;
  double sum = 0;
  for (const Run& run : runs) sum += std::pow(run.result->test_accuracy - test(), 2);
  return std::sqrt(sum / static_cast<double>(runs.size() - 1));
}

std::vector<Row> make_rows(std::span<const Run> runs) {
  std::map<std::string, std::vector<Run>> groups;
  std::map<std::string, Json> keys;
  for (const Run& run : runs) {
    const Json key = row_key(run.options);
    groups[key.dump()].push_back(run);
    keys[key.dump()] = key;
  }
  std::vector<Row> rows;
  for (const auto& [text, group] : groups) {
    const TrainOptions& options = group.front().options;
    Row row{.base = options.config.empty() ? options.base_arch : "",
            .sparse = options.sparse_arch.empty() ? "none" : options.sparse_arch,
            .runs = at_best_rate(group),
            .all = group.size()};
    row.finished = static_cast<std::size_t>(std::ranges::count_if(group, &Run::finished));
    row.paper = paper_accuracy(row.base, row.sparse);
    const Json& key = keys[text];
    std::vector<const Json*> siblings;
    for (const auto& [other_text, other] : keys) {
      const auto same = [&](const char* name) { return other[name] == key[name]; };
      if (same("base_arch") && same("sparse_arch") && same("config")) siblings.push_back(&other);
    }
    row.title = title_of(row, options.config) + distinction(key, siblings);
    rows.push_back(std::move(row));
  }
  const auto order = [](const Row& row) {
    return std::tuple(place(base_archs(), row.base), place(sparse_archs(), row.sparse), row.title);
  };
  std::ranges::sort(rows, [&](const Row& a, const Row& b) { return order(a) < order(b); });
  return rows;
}

std::vector<SizeCell> mean_sizes(const Row& row) {
  std::map<std::pair<std::int64_t, std::int64_t>, SizeCell> sum;
  for (const Run& run : row.runs) {
    if (run.sizes.empty()) return {};
    for (const SizeCell& cell : run.sizes) {
      SizeCell& at = sum[{cell.contexts, cell.keys}];
      at.contexts = cell.contexts;
      at.keys = cell.keys;
      at.samples += cell.samples;
      at.accuracy += cell.accuracy * static_cast<double>(cell.samples);
    }
  }
  std::vector<SizeCell> cells;
  for (auto& [size, cell] : sum) {
    cell.accuracy /= static_cast<double>(cell.samples);
    cells.push_back(cell);
  }
  return cells;
}

std::vector<DistanceClass> mean_distances(const Row& row) {
  std::map<std::int64_t, DistanceClass> sum;
  for (const Run& run : row.runs) {
    if (run.distances.empty()) return {};
    for (const DistanceClass& part : run.distances) {
      DistanceClass& at = sum[part.from];
      at.from = part.from;
      at.below = part.below;
      at.targets += part.targets;
      at.accuracy += part.accuracy * static_cast<double>(part.targets);
    }
  }
  std::vector<DistanceClass> classes;
  for (auto& [from, part] : sum) {
    part.accuracy /= static_cast<double>(part.targets);
    classes.push_back(part);
  }
  return classes;
}

std::vector<CurvePoint> mean_curve(const Row& row) {
  std::map<std::int64_t, std::pair<std::size_t, double>> sum;
  for (const Run& run : row.runs) {
    for (const CurvePoint& point : run.curve) {
      ++sum[point.step].first;
      sum[point.step].second += point.accuracy;
    }
  }
  std::vector<CurvePoint> curve;
  for (const auto& [step, part] : sum) {
    if (part.first == row.runs.size()) {
      curve.push_back({step, part.second / static_cast<double>(part.first)});
    }
  }
  return curve;
}

}  // namespace hax::results
