// hax list: every architecture, with its size, the state it carries and the work it does.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "models/architectures.h"
#include "models/costs.h"
#include "models/model.h"
#include "tools/commands.h"
#include "tools/data_flags.h"
#include "tools/settings.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

struct ListFlags {
  std::int64_t length = 1058;  // the paper's sample
  SettingFlags settings;
  bool json = false, markdown = false;
};

struct Row {
  std::string_view base, sparse, paper;
  ModelConfig config;
  std::int64_t parameters, keys;
  StateNumbers state;
  TokenFlops flops;
};

Row row_of(TrainOptions options, const BaseArch& base, const SparseArch& sparse,
           std::int64_t length) {
  options.base_arch = base.name;
  options.sparse_arch = sparse.name;
  try {
    const ModelConfig config = options.model_config(0);
    return {.base = base.name,
            .sparse = sparse.name,
            .paper = sparse.name == "none" ? base.paper : sparse.paper,
            .config = config,
            .parameters = Model(config).parameters().count(),
            .keys = most_visible_keys(config, length),
            .state = state_terms(config, length),
            .flops = flop_terms(config, length)};
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{} with {}: {}", base.name, sparse.name, error.what()));
  }
}

// Every base with every branch that it carries.
std::vector<Row> rows_of(const ListFlags& flags) {
  TrainOptions options;
  flags.settings.apply(options);
  options.validate();
  std::vector<Row> rows;
  for (const BaseArch& base : base_archs()) {
    const bool carries = named_config(base.name, "none").has_scan();
    for (const SparseArch& sparse : sparse_archs()) {
      if (carries || sparse.name == "none") {
        rows.push_back(row_of(options, base, sparse, flags.length));
      }
    }
  }
  return rows;
}

Json to_json(const Row& row, std::int64_t length) {
  const StateNumbers& s = row.state;
  const TokenFlops& f = row.flops;
  return {{"base_arch", row.base},
          {"sparse_arch", row.sparse},
          {"length", length},
          {"sparse_keys", row.config.sparse_keys},
          {"parameters", row.parameters},
          {"keys_per_query", row.keys},
          {"state_numbers", s.total()},
          {"state",
           {{"convolution", s.convolution},
            {"scan", s.scan},
            {"keys", s.keys},
            {"running_sums", s.running_sums},
            {"attention", s.attention}}},
          {"flops_per_token", f.total()},
          {"flops",
           {{"projections", f.projections},
            {"convolution", f.convolution},
            {"scan", f.scan},
            {"attention", f.attention},
            {"hashing", f.hashing},
            {"scoring", f.scoring},
            {"mlp", f.mlp},
            {"logits", f.logits}}}};
}

std::string indented(const std::string& lines) {
  std::string text = "  ";
  for (const char c : lines) text += c == '\n' ? std::string("\n  ") : std::string(1, c);
  return text;
}

void print_table(const std::vector<Row>& rows, std::int64_t length) {
  fmt::print("base_arch\n{}\n\n", indented(base_arch_lines()));
  fmt::print("sparse_arch: of the positions so far a query sees\n{}\n\n",
             indented(sparse_arch_lines()));
  fmt::print(
      "A sequence of {} tokens, k = {}. keys: what a query sees in one layer, at most.\n"
      "state: what the next token needs of the sequence, in float32, at most.\n"
      "work: of a forward pass, mean over the tokens; a multiply-add is 2 FLOPs.\n\n",
      length, rows.front().config.sparse_keys);
  fmt::print("{:>89}  {:>7}\n", "state", "work");
  fmt::print("{:<11}  {:<26}  {:<16}  {:>10}  {:>7}  {:>9}  {:>7}\n", "base_arch", "sparse_arch",
             "in the paper", "parameters", "keys", "KiB", "MFLOP");
  for (const Row& row : rows) {
    fmt::print("{:<11}  {:<26}  {:<16}  {:>10}  {:>7}  {:>9.1f}  {:>7.3f}\n", row.base, row.sparse,
               row.paper, row.parameters, row.keys,
               4 * static_cast<double>(row.state.total()) / 1024, row.flops.total() / 1e6);
  }
}

void run_list(const ListFlags& flags) {
  if (flags.markdown) {
    fmt::print("{}", architectures_markdown());
    return;
  }
  const std::vector<Row> rows = rows_of(flags);
  if (flags.json) {
    Json array = Json::array();
    for (const Row& row : rows) array.push_back(to_json(row, flags.length));
    fmt::print("{}\n", array.dump(2));
  } else {
    print_table(rows, flags.length);
  }
}

}  // namespace

void add_list_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "list", "print every architecture: parameters, keys, state, work per token");
  auto flags = std::make_shared<ListFlags>();
  add_number<std::int64_t>(*command, "--length", flags->length,
                           "tokens in the sequence that state and work are told for",
                           std::int64_t{1}, std::int64_t{1} << 30);
  flags->settings.add_to(*command, [](std::string_view name) {
    return name == "sparse_keys" || name == "data_max_length";
  });
  auto* json = command->add_flag(
      "--json", flags->json, "print a JSON array, an object a line of the table, with the terms");
  command->add_flag("--markdown", flags->markdown, "print the README's tables of names")
      ->excludes(json);
  command->callback([flags] { run_list(*flags); });
}

}  // namespace hax
