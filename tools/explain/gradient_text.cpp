#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/explain/examples.h"

namespace hax::explain {
namespace {

constexpr std::int64_t kRows = 8, kColumns = 9;
constexpr std::int64_t kBeside = 4;  // columns up to which two matrices stand side by side

// A tensor as rows of its last dimension.
struct Table {
  explicit Table(const Tensor& x)
      : columns(x.rank() == 0 ? 1 : x.size(x.rank() - 1)),
        rows(columns == 0 ? 0 : x.numel() / columns),
        data(x.numel() == 0 ? nullptr : x.data<double>()) {}

  std::string row(std::int64_t r) const {
    std::string text;
    for (std::int64_t c = 0; c < std::min(columns, kColumns); ++c) {
      text += fmt::format(" {:9.5f}", data[r * columns + c]);
    }
    return columns > kColumns ? text + " ..." : text;
  }
  std::int64_t shown() const { return std::min(rows, kRows); }
  std::string rest() const {
    return rows > kRows ? fmt::format("    ... {} more rows\n", rows - kRows) : "";
  }

  std::int64_t columns, rows;
  const double* data;
};

std::string lines_of(const Tensor& x) {
  const Table table(x);
  std::string text;
  for (std::int64_t r = 0; r < table.shown(); ++r) text += "   " + table.row(r) + "\n";
  return text + table.rest();
}

std::string beside(const Tensor& analytic, const Tensor& numeric) {
  const Table a(analytic), n(numeric);
  if (a.columns > kBeside) {
    return "    by backward()\n" + lines_of(analytic) + "    by finite differences\n" +
           lines_of(numeric);
  }
  const auto width = static_cast<std::size_t>(10 * a.columns);
  std::string text = fmt::format("    {:<{}}  |  by finite differences\n", "by backward()",
                                 std::max<std::size_t>(width, 13));
  for (std::int64_t r = 0; r < a.shown(); ++r) {
    text += fmt::format("   {:<{}}   | {}\n", a.row(r), std::max<std::size_t>(width, 13), n.row(r));
  }
  return text + a.rest();
}

double largest_gap(const Tensor& a, const Tensor& b) {
  double gap = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double here = std::abs(a.data<double>()[i] - b.data<double>()[i]);
    gap = std::isfinite(here) ? std::max(gap, here) : std::numeric_limits<double>::infinity();
  }
  return gap;
}

std::string shape_text(const Tensor& x) { return fmt::format("{}", x.shape()); }

}  // namespace

std::string matrix_text(const std::string& name, const Tensor& x) {
  return fmt::format("  {} {}\n{}", name, shape_text(x), lines_of(x));
}

std::string gradient_text(const GradCase& c) {
  const GradExample example = gradient_example(c);
  std::string text = fmt::format("{}, case \"{}\", in float64\n\n", c.op, c.what);
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    text += matrix_text(c.name_of_input(static_cast<int>(i)), c.inputs[i]);
  }
  text += "\nforward\n" + matrix_text("y", example.y);
  text += "\nbackward, of the loss  sum of dy * y\n" + matrix_text("dy", example.dy);
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    text += fmt::format("  gradient of {} {}, largest gap {:.1e}\n{}",
                        c.name_of_input(static_cast<int>(i)), shape_text(c.inputs[i]),
                        largest_gap(example.analytic[i], example.numeric[i]),
                        beside(example.analytic[i], example.numeric[i]));
  }
  return text;
}

}  // namespace hax::explain
