#include "tools/report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace hax::results {
namespace {

constexpr std::size_t kColumns = 6;
using Cells = std::array<std::string, kColumns>;

const Cells kHead{"architecture", "test accuracy %", "validation %", "best lr", "runs", "paper %"};

Cells cells_of(const Row& row) {
  if (row.runs.empty()) return {row.title, "–", "–", "–", runs_text(row), paper_text(row)};
  return {row.title,      test_text(row), percent(row.valid()), fmt::format("{}", row.lr()),
          runs_text(row), paper_text(row)};
}

// Characters, not bytes.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string percent(double accuracy) { return fmt::format("{:.1f}", 100 * accuracy); }

std::string test_text(const Row& row) {
  if (row.runs.empty()) return "–";
  const std::optional<double> spread = row.spread();
  return percent(row.test()) + (spread ? " ± " + percent(*spread) : "");
}

std::string runs_text(const Row& row) {
  return row.finished < row.all ? fmt::format("{} of {}", row.finished, row.all)
                                : fmt::format("{}", row.runs.size());
}

std::string paper_text(const Row& row) {
  return row.paper ? fmt::format("{:.1f}", *row.paper) : "–";
}

std::string markdown_table(std::span<const Row> rows) {
  std::string text = "|";
  for (const std::string& head : kHead) text += " " + head + " |";
  text += "\n|---|";
  for (std::size_t c = 1; c < kColumns; ++c) text += "---:|";
  text += "\n";
  for (const Row& row : rows) {
    text += "|";
    for (const std::string& cell : cells_of(row)) text += " " + cell + " |";
    text += "\n";
  }
  return text;
}

std::string plain_table(std::span<const Row> rows) {
  std::vector<Cells> lines{kHead};
  for (const Row& row : rows) lines.push_back(cells_of(row));
  std::array<std::size_t, kColumns> widths{};
  for (const Cells& line : lines) {
    for (std::size_t c = 0; c < kColumns; ++c) widths[c] = std::max(widths[c], width(line[c]));
  }
  std::string text;
  for (const Cells& line : lines) {
    for (std::size_t c = 0; c < kColumns; ++c) {
      const std::string fill(widths[c] - width(line[c]), ' ');
      text += c == 0 ? line[c] + fill : "  " + fill + line[c];
    }
    text += "\n";
  }
  return text;
}

}  // namespace hax::results
