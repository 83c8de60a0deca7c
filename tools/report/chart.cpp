#include "tools/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace hax::results {
namespace {

constexpr double kWidth = 640, kHeight = 300, kLeft = 46, kRight = 14, kTop = 10, kBottom = 44;
constexpr std::size_t kColours = 10, kMostMarks = 40;

struct Scale {
  double lo = 0, hi = 1;
  double x(double value) const {
    return kLeft + (value - lo) / (hi - lo) * (kWidth - kLeft - kRight);
  }
  static double y(double share) { return kTop + (1 - share) * (kHeight - kTop - kBottom); }
};

Scale scale_of(const LineChart& chart) {
  Scale scale{1e300, -1e300};
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) {
      scale.lo = std::min(scale.lo, point.x);
      scale.hi = std::max(scale.hi, point.x);
    }
  }
  if (scale.lo > scale.hi) scale = {0, 1};
  if (scale.lo == scale.hi) scale = {scale.lo - 0.5, scale.hi + 0.5};
  return scale;
}

std::string axes(const LineChart& chart, const Scale& scale) {
  std::string svg;
  for (int share = 0; share <= 100; share += 20) {
    const double y = Scale::y(share / 100.0);
    svg += fmt::format(R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)",
                       kLeft, kWidth - kRight, y, y, kLeft - 6, y + 4, share);
  }
  for (const Tick& tick : chart.ticks) {
    svg += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)",
                       scale.x(tick.x), kHeight - kBottom + 17, escaped(tick.label));
  }
  svg += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)",
                     (kLeft + kWidth - kRight) / 2, kHeight - 8, escaped(chart.x_title));
  return svg + fmt::format(R"(<text x="4" y="{:.1f}">%</text>)", kTop + 4) + "\n";
}

std::string line_of(const Series& series, std::size_t colour, const Scale& scale) {
  std::string points, marks;
  for (const Point& point : series.points) {
    const double x = scale.x(point.x), y = Scale::y(point.y);
    points += fmt::format("{}{:.1f},{:.1f}", points.empty() ? "" : " ", x, y);
    marks += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="3"><title>{}, {}: {:.1f} %</title>)"
                         "</circle>",
                         x, y, escaped(series.name), escaped(point.label), 100 * point.y);
  }
  if (series.points.size() > kMostMarks) marks.clear();
  return fmt::format(R"(<g class="s{}"><polyline points="{}"><title>{}</title></polyline>{}</g>)"
                     "\n",
                     colour, points, escaped(series.name), marks);
}

std::string legend_entry(const Series& series, std::size_t colour) {
  return fmt::format(R"(<li><svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true">)"
                     R"(<g class="s{}"><line x1="0" x2="28" y1="4" y2="4"/></g></svg> {}{}</li>)",
                     colour, escaped(series.name),
                     series.points.empty()
                         ? std::string()
                         : fmt::format(" <b>{:.1f}</b>", 100 * series.points.back().y));
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

std::string line_chart(const LineChart& chart) {
  const Scale scale = scale_of(chart);
  std::string html = fmt::format(
      R"(<figure><svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">)"
      "\n",
      kWidth, kHeight, escaped(chart.title));
  html += axes(chart, scale);
  std::string legend;
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    html += line_of(chart.series[i], i % kColours, scale);
    legend += legend_entry(chart.series[i], i % kColours);
  }
  return html +
         fmt::format("</svg><figcaption>{}</figcaption><ul class=\"legend\">{}</ul></figure>\n",
                     escaped(chart.title), legend);
}

std::string heat_map(const std::string& caption, const std::string& corner,
                     std::span<const std::string> rows, std::span<const std::string> columns,
                     std::span<const double> values) {
  std::string html = fmt::format("<table class=\"heat\"><caption>{}</caption>\n<tr><th>{}</th>",
                                 escaped(caption), escaped(corner));
  for (const std::string& column : columns) {
    html += fmt::format("<th scope=\"col\">{}</th>", escaped(column));
  }
  html += "</tr>\n";
  for (std::size_t r = 0; r < rows.size(); ++r) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", escaped(rows[r]));
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const double value = values[r * columns.size() + c];
      if (value < 0) {
        html += "<td>–</td>";
        continue;
      }
      html += fmt::format("<td class=\"q{}\">{:.0f}</td>",
                          std::clamp(static_cast<int>(value * 10), 0, 9), 100 * value);
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

}  // namespace hax::results
