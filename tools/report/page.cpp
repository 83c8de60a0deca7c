#include "tools/report/page.h"

#include <fmt/format.h>

#include <set>

#include "tools/report/costs.h"
#include "tools/report/embedded_report.h"
#include "tools/report/pictures.h"
#include "tools/report/table.h"

namespace hax::results {
namespace {

std::string bar(double percentage) {
  return fmt::format("<span style=\"width:{:.1f}%\"></span>", percentage);
}

// Ours above the paper's; the numbers beside them say the same.
std::string bars(const Row& row) {
  const std::string ours = bar(row.runs.empty() ? 0 : 100 * row.test());
  return ours + (row.paper ? bar(*row.paper) : "");
}

std::string accuracy_table(const Report& report) {
  std::string html =
      "<div class=\"scroll\" role=\"region\" aria-label=\"Accuracy\" tabindex=\"0\"><table>\n"
      "<thead><tr><th scope=\"col\">architecture</th><th scope=\"col\">test accuracy %</th>"
      "<th scope=\"col\">paper %</th><td class=\"bars\" aria-hidden=\"true\">ours, paper</td>"
      "<th scope=\"col\">validation %</th><th scope=\"col\">best lr</th>"
      "<th scope=\"col\">runs</th></tr></thead>\n<tbody>\n";
  for (const Row& row : report.rows) {
    const bool any = !row.runs.empty();
    html += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>"
        "<td class=\"bars\" aria-hidden=\"true\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(row.title), test_text(row), paper_text(row), bars(row),
        any ? percent(row.valid()) : "–", any ? fmt::format("{}", row.lr()) : "–", runs_text(row));
  }
  return html + "</tbody></table></div>\n";
}

std::string costs_table(const Report& report) {
  std::string html =
      "<div class=\"scroll\" role=\"region\" aria-label=\"Costs\" tabindex=\"0\"><table>\n"
      "<thead><tr><th scope=\"col\">architecture</th>";
  for (const char* head : kCostHead) html += fmt::format("<th scope=\"col\">{}</th>", head);
  html += "</tr></thead>\n<tbody>\n";
  for (const Row& row : report.rows) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", escaped(row.title));
    for (const std::string& cell : cost_cells(row)) html += fmt::format("<td>{}</td>", cell);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string section(const char* id, const char* title, const std::string& body) {
  return fmt::format(
      "<section id=\"{0}\" aria-labelledby=\"{0}-title\">\n"
      "<h2 id=\"{0}-title\">{1}</h2>\n{2}</section>\n",
      id, title, body);
}

std::string note(const std::string& text) {
  return "<p class=\"note\">" + escaped(text) + "</p>\n";
}

std::vector<std::string> tasks(const Report& report) {
  std::set<std::string> names;
  for (const Run& run : report.runs) {
    // Streams are of one task whatever their seed; the seed is not part of its words.
    if (!run.task.empty()) names.insert(run.task);
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> unfinished(const Report& report) {
  std::vector<std::string> lines = report.damaged;
  for (const Run& run : report.runs) {
    if (run.finished()) continue;
    lines.push_back(fmt::format("{}: not finished, at step {} of {}",
                                run.folder.filename().string(), run.step, run.options.step));
  }
  return lines;
}

std::string summary(const Report& report) {
  std::size_t finished = 0;
  for (const Run& run : report.runs) finished += run.finished() ? 1 : 0;
  std::string text = fmt::format("{} of {} runs finished, {} rows.", finished, report.runs.size(),
                                 report.rows.size());
  for (const std::string& task : tasks(report)) text += " Task: " + task + ".";
  return text;
}

const char kAccuracyNote[] =
    "Share of right answers of a sample, mean over the test samples of the model with the best "
    "validation; mean and standard deviation over seeds at the learning rate whose mean validation "
    "accuracy is best. The paper's numbers are of its own task and training length: table 3 of "
    "arXiv 2507.00449, best of three learning rates, mean of three seeds.";
const char kCostNote[] =
    "Means over the same runs. Time is that of the training steps, at the speed they were measured "
    "with, and of the validations; memory is the most that tensors took at once. Machines that are "
    "shared make these numbers uncertain; accuracies do not depend on them.";

}  // namespace

std::string html_page(const Report& report) {
  std::string body = section("accuracy", "Accuracy", note(kAccuracyNote) + accuracy_table(report));
  body += section("curves", "Learning curves",
                  note("Validation accuracy, mean over seeds at the best learning rate.") +
                      learning_curves(report.rows));
  body += section("sizes", "Accuracy by table size",
                  note("Test accuracy in per cent for tables of so many contexts (rows) and keys "
                       "in each (columns).") +
                      size_maps(report.rows));
  body += section("distance", "Accuracy by distance",
                  note("Test accuracy over the number of tokens between a key in the table and "
                       "the same key in the question.") +
                      distance_charts(report.rows));
  body += section("costs", "Costs", note(kCostNote) + costs_table(report));
  std::string links;
  for (const char* link : {"accuracy", "curves", "sizes", "distance", "costs"}) {
    links += fmt::format("<li><a href=\"#{0}\">{0}</a></li>", link);
  }
  const std::vector<std::string> open = unfinished(report);
  if (!open.empty()) {
    std::string items;
    for (const std::string& line : open) items += "<li>" + escaped(line) + "</li>\n";
    body += section("open", "Runs without a result", "<ul>\n" + items + "</ul>\n");
    links += "<li><a href=\"#open\">without a result</a></li>";
  }
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>hax report</title>\n<style>\n{}</style>\n</head>\n<body>\n<header>\n"
      "<h1>Joint recall: report of {} runs</h1>\n<p>{}</p>\n</header>\n"
      "<nav aria-label=\"Sections\"><ul>{}</ul></nav>\n<main>\n{}</main>\n</body>\n</html>\n",
      report_text("style"), report.runs.size(), escaped(summary(report)), links, body);
}

std::string markdown_page(const Report& report) {
  std::string text =
      fmt::format("# Joint recall: report of {} runs\n\n{}\n\n{}\n\n{}", report.runs.size(),
                  summary(report), kAccuracyNote, markdown_table(report.rows));
  text += fmt::format("\n## Costs\n\n{}\n\n| architecture |", kCostNote);
  std::string rule = "\n|---|";
  for (const char* head : kCostHead) {
    text += fmt::format(" {} |", head);
    rule += "---:|";
  }
  text += rule + "\n";
  for (const Row& row : report.rows) {
    text += "| " + row.title + " |";
    for (const std::string& cell : cost_cells(row)) text += " " + cell + " |";
    text += "\n";
  }
  const std::vector<std::string> open = unfinished(report);
  if (!open.empty()) text += "\n## Runs without a result\n\n";
  for (const std::string& line : open) text += "* " + line + "\n";
  return text;
}

}  // namespace hax::results
