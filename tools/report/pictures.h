// The pictures of a report's rows, as HTML.
#pragma once

#include <span>
#include <string>

#include "tools/report/chart.h"
#include "tools/report/rows.h"

namespace hax::results {

/// One chart for the rows of each base, at both widths.
std::string learning_curves(std::span<const Row> rows);
std::string distance_charts(std::span<const Row> rows);
/// One heat map a row.
std::string size_maps(std::span<const Row> rows);

}  // namespace hax::results
