// hax prove --show: the construction at work on a table small enough to read.
#pragma once

#include "data/joint_recall.h"
#include "models/theorem.h"

namespace hax {

/// Prints every position of one table: its token, the state there in words, its hash bins, and for
/// a question the keys seen and the answer.
void show_theorem(const JointRecallTask& table, const TheoremOptions& options);

}  // namespace hax
