// The report: one HTML page that needs nothing else, and one Markdown page.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/report/rows.h"

namespace hax::results {

struct Report {
  std::vector<Run> runs;
  std::vector<Row> rows;             ///< of `runs`
  std::vector<std::string> damaged;  ///< what could not be read, one line each
};

std::string html_page(const Report& report);
std::string markdown_page(const Report& report);

}  // namespace hax::results
