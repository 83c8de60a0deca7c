// The rows of an op on the device, forward and backward.
#pragma once

#include <optional>

#include "tools/bench/bench.h"
#include "tools/bench/op_cases.h"

namespace hax::bench {

/// Adds the rows of an op. `target_share`: of the copy's rate, that they should reach.
void add_op_rows(Bench& bench, const OpCase& op_case, const OpSetting& setting,
                 std::optional<double> target_share = {});

}  // namespace hax::bench
