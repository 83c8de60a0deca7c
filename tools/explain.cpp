// hax explain: an op's page, a worked example with numbers, its gradient beside finite differences.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/check.h"
#include "models/config.h"
#include "tools/commands.h"
#include "tools/explain/embedded_pages.h"
#include "tools/explain/examples.h"

namespace hax {
namespace {

struct ExplainFlags {
  std::string op;
  std::string which;
  bool cases = false, no_page = false;
};

// Folders of ops/ and the ops in them that have a name of their own, "silu" in elementwise.
std::vector<std::string> names_of(const std::vector<GradCase>& all) {
  std::vector<std::string> names;
  for (const EmbeddedText& page : embedded_pages()) names.emplace_back(page.name);
  for (const GradCase& c : all) names.push_back(c.op);
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::string_view page_of(std::string_view folder) {
  for (const EmbeddedText& page : embedded_pages()) {
    if (page.name == folder) return page.text;
  }
  throw Error(fmt::format("ops/{} has no page", folder));
}

std::int64_t numbers_of(const GradCase& c) {
  std::int64_t count = 0;
  for (const Tensor& input : c.inputs) count += input.numel();
  return count;
}

// Small enough to read, large enough to show something.
const GradCase& most_readable(const std::vector<GradCase>& cases) {
  const auto badness = [](const GradCase& c) {
    const std::int64_t count = numbers_of(c);
    return count < 6 ? 1'000'000 - count : count;
  };
  return *std::ranges::min_element(cases, {}, badness);
}

const GradCase& chosen(const std::vector<GradCase>& cases, const ExplainFlags& flags) {
  if (flags.which.empty()) return most_readable(cases);
  std::vector<std::string> names;
  for (const GradCase& c : cases) {
    if (c.what == flags.which) return c;
    names.push_back(c.what);
  }
  throw UsageError(fmt::format("--case '{}': {} has no such case{}; --cases lists them",
                               flags.which, flags.op, suggest(flags.which, names)));
}

void run_explain(const ExplainFlags& flags) {
  const std::vector<GradCase> all = all_gradchecks();
  const std::vector<std::string> names = names_of(all);
  if (flags.op.empty()) {
    fmt::print("hax explain OP, with OP one of\n");
    for (const std::string& name : names) fmt::print("  {}\n", name);
    return;
  }
  check_usage(std::ranges::count(names, flags.op) > 0, "explain: unknown op '{}'{}", flags.op,
              suggest(flags.op, names));
  std::string folder = flags.op;
  std::vector<GradCase> cases;
  for (const GradCase& c : all) {
    if (c.op != flags.op && c.folder != flags.op) continue;
    if (c.op == flags.op) folder = c.folder;
    cases.push_back(c);
  }
  if (flags.cases) {
    for (const GradCase& c : cases) {
      fmt::print("  {:<24} {:<46} {:>5} numbers\n", c.op, c.what, numbers_of(c));
    }
    return;
  }
  if (!flags.no_page) fmt::print("{}\n", page_of(folder));
  const std::string rule(78, '-');
  fmt::print("{}\nA worked example: ", rule);
  if (cases.empty()) {
    check_usage(flags.which.empty(), "--case '{}': {} has no gradient, so no cases", flags.which,
                flags.op);
    fmt::print("{}", explain::keys_text(flags.op));
  } else {
    fmt::print("{}", explain::gradient_text(chosen(cases, flags)));
  }
}

}  // namespace

void add_explain_command(CLI::App& app) {
  auto* command =
      app.add_subcommand("explain",
                         "print an op's page, an example with numbers, and its gradient beside "
                         "finite differences");
  auto flags = std::make_shared<ExplainFlags>();
  command->add_option("op", flags->op, "a folder of ops/ or an op in it; none: list them");
  command->add_option("--case", flags->which, "which of the op's gradient checks to show");
  command->add_flag("--cases", flags->cases, "list the op's gradient checks");
  command->add_flag("--no_page", flags->no_page, "the example alone");
  command->callback([flags] { run_explain(*flags); });
}

}  // namespace hax
