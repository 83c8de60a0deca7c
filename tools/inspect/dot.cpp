#include <fmt/format.h>

#include <map>
#include <vector>

#include "tools/inspect/text.h"

namespace hax::inspect {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

struct ScopeNode {
  std::map<std::string, ScopeNode> inner;
  std::vector<std::size_t> ops;
};

void write_scope(const Inspection& inspection, const ScopeNode& scope, const std::string& path,
                 const std::string& indent, std::string& dot) {
  for (const std::size_t i : scope.ops) {
    const InspectedOp& op = inspection.ops[i];
    std::string shapes;
    for (const InspectedTensor& y : op.outputs) shapes += fmt::format("\\n{}", y.shape);
    std::string label = quoted(op.op);
    label.insert(label.size() - 1, shapes);
    dot += fmt::format("{}op{} [label={}{}];\n", indent, i, label,
                       op.backward_order < 0 ? ", style=dashed" : "");
  }
  for (const auto& [name, inner] : scope.inner) {
    const std::string full = path.empty() ? name : path + "." + name;
    dot += fmt::format("{}subgraph {} {{\n{}  label={};\n", indent, quoted("cluster_" + full),
                       indent, quoted(name));
    write_scope(inspection, inner, full, indent + "  ", dot);
    dot += indent + "}\n";
  }
}

}  // namespace

std::string to_dot(const Inspection& inspection) {
  ScopeNode root;
  for (std::size_t i = 0; i < inspection.ops.size(); ++i) {
    ScopeNode* at = &root;
    std::string rest = inspection.ops[i].scope;
    while (!rest.empty()) {
      const std::size_t end = rest.find('.');
      at = &at->inner[rest.substr(0, end)];
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
    }
    at->ops.push_back(i);
  }
  std::string dot = "digraph hax {\n  node [shape=box];\n";
  write_scope(inspection, root, "", "  ", dot);
  for (std::size_t i = 0; i < inspection.ops.size(); ++i) {
    for (const InspectedInput& input : inspection.ops[i].inputs) {
      if (input.op < 0) continue;
      const std::string flow = input.gradient_norm < 0
                                   ? std::string()
                                   : fmt::format(" [label=\"{:.2g}\"]", input.gradient_norm);
      dot += fmt::format("  op{} -> op{}{};\n", input.op, i, flow);
    }
  }
  return dot + "}\n";
}

}  // namespace hax::inspect
