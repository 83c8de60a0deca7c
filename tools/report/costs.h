// What the runs of a row cost.
#pragma once

#include <array>
#include <string>

#include "tools/report/rows.h"

namespace hax::results {

inline constexpr std::array<const char*, 5> kCostHead{"time of a run", "tokens/s", "parameters",
                                                      "memory MB", "threads"};

/// In the order of kCostHead; "–" where the runs did not record it.
std::array<std::string, kCostHead.size()> cost_cells(const Row& row);

}  // namespace hax::results
