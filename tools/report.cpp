// hax report: run folders as one HTML page and one Markdown page.
#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "engine/check.h"
#include "engine/files.h"
#include "tools/commands.h"
#include "tools/report/page.h"
#include "tools/report/table.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

struct ReportFlags {
  std::vector<std::string> runs;
  std::string out, markdown;
};

results::Report read_report(const std::vector<std::string>& roots) {
  std::set<fs::path> folders;
  for (const std::string& root : roots) {
    for (const fs::path& folder : results::find_runs(root)) folders.insert(folder);
  }
  results::Report result;
  for (const fs::path& folder : folders) {
    try {
      result.runs.push_back(results::read_run(folder));
    } catch (const Error& error) {
      result.damaged.push_back(error.what());
    }
  }
  check(!result.runs.empty(), "no run can be read: {}", fmt::join(result.damaged, "; "));
  result.rows = results::make_rows(result.runs);
  return result;
}

void run_report(const ReportFlags& flags) {
  check_usage(!flags.out.empty() || !flags.markdown.empty(),
              "--out is missing: the HTML file to write (or --markdown)");
  const results::Report result = read_report(flags.runs);
  if (!flags.out.empty()) write_file_atomically(flags.out, results::html_page(result));
  if (!flags.markdown.empty()) {
    write_file_atomically(flags.markdown, results::markdown_page(result));
  }
  fmt::print("{}", results::plain_table(result.rows));
  for (const std::string& line : result.damaged) fmt::print("left out: {}\n", line);
}

}  // namespace

void add_report_command(CLI::App& app) {
  auto* command = app.add_subcommand("report", "tables and pictures of finished runs");
  auto flags = std::make_shared<ReportFlags>();
  command->add_option("runs", flags->runs, "run folders, or folders above them")
      ->required()
      ->type_name("RUNS");
  command->add_option("--out", flags->out, "HTML page to write");
  command->add_option("--markdown", flags->markdown, "Markdown page to write");
  command->callback([flags] { run_report(*flags); });
}

}  // namespace hax
