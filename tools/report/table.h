// The table of results, for Markdown and for the terminal. It holds nothing that depends on a
// clock: equal runs give equal tables.
#pragma once

#include <span>
#include <string>

#include "tools/report/rows.h"

namespace hax::results {

/// "61.2"; accuracy 0 to 1 in per cent.
std::string percent(double accuracy);
/// "61.2 ± 0.8", "61.2" for one run, "–" for none.
std::string test_text(const Row& row);
/// "2 of 3" while runs are missing at any rate, else the runs at the best rate.
std::string runs_text(const Row& row);
std::string paper_text(const Row& row);

std::string markdown_table(std::span<const Row> rows);
std::string plain_table(std::span<const Row> rows);

}  // namespace hax::results
