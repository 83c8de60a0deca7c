// hax list: every architecture this binary trains.
#include <fmt/format.h>

#include "models/model.h"
#include "tools/commands.h"

namespace hax {
namespace {

struct Named {
  const char* arch;
  const char* paper;
  const char* sees;
};

// The paper's names (table 3) and what a query sees with k keys in all.
constexpr Named kSparse[] = {
    {"none", "base", "state only"},
    {"full", "full attention", "all earlier positions"},
    {"dilated", "+D", "k positions, one in 2048/k"},
    {"sliding_window", "+SW", "the k most recent"},
    {"sliding_window+dilated", "+SW+D", "k/2 recent, k/2 dilated"},
    {"sliding_window+sink", "+A", "k/2 recent, the first k/2"},
    {"argmax_lsh", "+LSH (argmax)", "the k most recent of its bin"},
    {"sign_bin_lsh", "+LSH", "the k most recent of its bin"},
    {"key_selection", "+KS", "the k best-scored so far"},
    {"sign_bin_lsh+key_selection", "+HAX", "k/2 of its bin, k/2 best-scored"},
};

void run_list() {
  fmt::print("{:<10} {:<28} {:<16} {:>10}  {}\n", "base_arch", "sparse_arch", "paper", "parameters",
             "a query sees");
  for (const std::string& base : base_arch_names()) {
    for (const Named& sparse : kSparse) {
      const ModelConfig config = named_config(base, sparse.arch);
      if (config.has_mlp() && config.sparse_arch != "none") continue;  // Samba has no such branch
      const Model model(config);
      fmt::print("{:<10} {:<28} {:<16} {:>10}  {}\n", base, sparse.arch, sparse.paper,
                 model.parameters().count(), sparse.sees);
    }
  }
}

}  // namespace

void add_list_command(CLI::App& app) {
  app.add_subcommand("list", "print every architecture")->callback(run_list);
}

}  // namespace hax
