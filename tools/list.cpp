// hax list: every architecture this binary trains.
#include <fmt/format.h>

#include "models/architectures.h"
#include "models/model.h"
#include "tools/commands.h"

namespace hax {
namespace {

void run_list() {
  fmt::print("{:<11} {:<28} {:<16} {:>10}  {}\n", "base_arch", "sparse_arch", "paper", "parameters",
             "a query sees");
  for (const std::string& base : base_arch_names()) {
    for (const SparseArch& sparse : sparse_archs()) {
      const ModelConfig config = named_config(base, sparse.name);
      if (!config.has_scan() && config.sparse_arch != "none") continue;
      const Model model(config);
      fmt::print("{:<11} {:<28} {:<16} {:>10}  {}\n", base, sparse.name, sparse.paper,
                 model.parameters().count(), sparse.sees);
    }
  }
}

}  // namespace

void add_list_command(CLI::App& app) {
  app.add_subcommand("list", "print every architecture")->callback(run_list);
}

}  // namespace hax
