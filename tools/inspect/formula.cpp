#include <string_view>
#include <vector>

#include "ops/gradcheck.h"
#include "tools/explain/embedded_pages.h"
#include "tools/inspect/text.h"

namespace hax::inspect {
namespace {

// The folder of ops/ whose page describes the op.
std::string folder_of(const std::string& op) {
  for (const EmbeddedText& page : embedded_pages()) {
    if (page.name == op) return op;
  }
  if (op == "linear" || op == "linears") return "matmul";
  if (op == "normalized_running_sum") return "running_sum";
  static const std::vector<GradCase> cases = all_gradchecks();
  for (const GradCase& c : cases) {
    if (c.op == op) return c.folder;
  }
  return "";
}

// The first indented block, without its indentation.
std::vector<std::string_view> first_block(std::string_view page) {
  constexpr std::string_view kIndent = "    ";
  std::vector<std::string_view> lines;
  while (!page.empty()) {
    const std::size_t end = page.find('\n');
    const std::string_view line = page.substr(0, end);
    page.remove_prefix(end == std::string_view::npos ? page.size() : end + 1);
    if (line.starts_with(kIndent)) {
      lines.push_back(line.substr(kIndent.size()));
    } else if (!lines.empty()) {
      break;
    }
  }
  return lines;
}

}  // namespace

std::string formula_of(const std::string& op) {
  const std::string folder = folder_of(op);
  std::string all, own;
  for (const EmbeddedText& page : embedded_pages()) {
    if (page.name != folder) continue;
    const std::string name = op == "linears" ? "linear" : op;
    for (const std::string_view line : first_block(page.text)) {
      all += std::string(line) + "\n";
      // A page of several ops begins each line with the op that it is about.
      const bool about = line.starts_with(name) && line.size() > name.size() &&
                         std::string_view("(: ").find(line[name.size()]) != std::string_view::npos;
      if (about) own += std::string(line) + "\n";
    }
  }
  return own.empty() ? all : own;
}

}  // namespace hax::inspect
