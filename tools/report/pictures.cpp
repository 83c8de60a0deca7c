#include "tools/report/pictures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

namespace hax::results {
namespace {

constexpr std::size_t kMostPoints = 120;

// "mamba_2x" is drawn beside "mamba".
std::string family(const Row& row) { return row.base.substr(0, row.base.find('_')); }

std::string family_title(const std::string& family) {
  if (family.empty()) return "other models";
  std::string title = family;
  title[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(title[0])));
  return title;
}

using MakeSeries = std::function<Series(const Row&)>;
using MakeTicks = std::function<std::vector<Tick>(std::span<const Series>)>;

std::string charts(std::span<const Row> rows, const std::string& what, const std::string& x_title,
                   const MakeSeries& make, const MakeTicks& ticks) {
  std::vector<std::string> families;
  std::map<std::string, std::vector<Series>> groups;
  for (const Row& row : rows) {
    Series series = make(row);
    if (series.points.empty()) continue;
    if (!groups.contains(family(row))) families.push_back(family(row));
    groups[family(row)].push_back(std::move(series));
  }
  std::string html;
  for (const std::string& name : families) {
    html += line_chart({.title = family_title(name) + ": " + what,
                        .x_title = x_title,
                        .ticks = ticks(groups[name]),
                        .series = groups[name]});
  }
  return html.empty() ? "" : "<div class=\"charts\">\n" + html + "</div>\n";
}

Series curve_of(const Row& row) {
  const std::vector<CurvePoint> curve = mean_curve(row);
  const std::size_t every = (curve.size() + kMostPoints - 1) / kMostPoints;
  Series series{row.title, {}};
  for (std::size_t i = 0; i < curve.size(); ++i) {
    // The last point counts, then every so many before it.
    if ((curve.size() - 1 - i) % every != 0) continue;
    series.points.push_back({static_cast<double>(curve[i].step), curve[i].accuracy,
                             fmt::format("step {}", curve[i].step)});
  }
  return series;
}

// Four round numbers of steps.
std::vector<Tick> step_ticks(std::span<const Series> series) {
  double most = 0, least = 1e300;
  for (const Series& one : series) {
    for (const Point& point : one.points) {
      most = std::max(most, point.x);
      least = std::min(least, point.x);
    }
  }
  const double power = std::pow(10, std::floor(std::log10(std::max(1.0, most / 4))));
  double step = power;
  for (const double factor : {2.0, 5.0, 10.0}) {
    if (most / step > 5) step = factor * power;
  }
  std::vector<Tick> ticks;
  for (double x = step; x <= most; x += step) {
    if (x >= least) ticks.push_back({x, fmt::format("{:.0f}", x)});
  }
  return ticks;
}

std::string distance_text(const DistanceClass& part) {
  return part.below - part.from == 1 ? fmt::format("{}", part.from)
                                     : fmt::format("{}–{}", part.from, part.below - 1);
}

Series distances_of(const Row& row) {
  Series series{row.title, {}};
  for (const DistanceClass& part : mean_distances(row)) {
    series.points.push_back({std::log2(static_cast<double>(part.from)), part.accuracy,
                             distance_text(part) + " tokens"});
  }
  return series;
}

std::vector<Tick> distance_ticks(std::span<const Series> series) {
  std::set<double> all;
  for (const Series& one : series) {
    for (const Point& point : one.points) all.insert(point.x);
  }
  std::vector<Tick> ticks;
  for (const double x : all) ticks.push_back({x, fmt::format("{:.0f}", std::exp2(x))});
  return ticks;
}

std::string size_map(const Row& row) {
  const std::vector<SizeCell> cells = mean_sizes(row);
  std::set<std::int64_t> contexts, keys;
  for (const SizeCell& cell : cells) {
    contexts.insert(cell.contexts);
    keys.insert(cell.keys);
  }
  if (cells.empty()) return {};
  std::vector<std::string> row_names, column_names;
  std::vector<double> values;
  for (const std::int64_t c : contexts) {
    row_names.push_back(fmt::format("{}", c));
    for (const std::int64_t k : keys) {
      const auto found = std::ranges::find_if(
          cells, [&](const SizeCell& cell) { return cell.contexts == c && cell.keys == k; });
      values.push_back(found == cells.end() ? -1 : found->accuracy);
    }
  }
  for (const std::int64_t k : keys) column_names.push_back(fmt::format("{}", k));
  return "<div role=\"region\" tabindex=\"0\" aria-label=\"" + escaped(row.title) + "\">" +
         heat_map(row.title, "n_c \\ n_k", row_names, column_names, values) + "</div>\n";
}

// Rows that have results but no breakdown: runs of a version that did not record it.
std::string without_breakdown(std::span<const Row> rows) {
  std::string names;
  for (const Row& row : rows) {
    if (row.runs.empty() || !mean_sizes(row).empty()) continue;
    names += (names.empty() ? "" : "; ") + row.title;
  }
  if (names.empty()) return {};
  return "<p class=\"note\">Not recorded by the runs of: " + escaped(names) +
         ". <code>hax eval --checkpoint RUN --breakdown RUN/breakdown.json</code> adds it.</p>\n";
}

}  // namespace

std::string learning_curves(std::span<const Row> rows) {
  return charts(rows, "validation accuracy in per cent over training steps", "step", curve_of,
                step_ticks);
}

std::string distance_charts(std::span<const Row> rows) {
  return charts(rows, "test accuracy in per cent over the distance in tokens",
                "distance in tokens, from this number on", distances_of, distance_ticks) +
         without_breakdown(rows);
}

std::string size_maps(std::span<const Row> rows) {
  std::string html;
  for (const Row& row : rows) html += size_map(row);
  return "<div class=\"maps\">\n" + html + "</div>\n" + without_breakdown(rows);
}

}  // namespace hax::results
