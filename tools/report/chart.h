// Pictures of the report, as pieces of HTML: line charts (SVG) and heat maps (tables).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hax::results {

/// Text as HTML shows it.
std::string escaped(std::string_view text);

struct Point {
  double x = 0;
  double y = 0;       ///< 0 to 1
  std::string label;  ///< what x is: "step 500"
};

struct Series {
  std::string name;
  std::vector<Point> points;
};

struct Tick {
  double x = 0;
  std::string label;
};

struct LineChart {
  std::string title;  ///< told to screen readers
  std::string x_title;
  std::vector<Tick> ticks;
  std::vector<Series> series;
};

/// Per cent from 0 to 100 over x, with a legend. Lines differ in colour and dashes.
std::string line_chart(const LineChart& chart);

/// A table of percentages, darker where higher. `values` [rows x columns], 0 to 1; below 0: no
/// value there.
std::string heat_map(const std::string& caption, const std::string& corner,
                     std::span<const std::string> rows, std::span<const std::string> columns,
                     std::span<const double> values);

}  // namespace hax::results
