// hax train --together: several runs in one process, side by side on one GPU.
#pragma once

#include <atomic>
#include <string>

#include "tools/settings.h"

namespace hax {

/// Runs all of `list`, a JSON file [{"recipe": file, "save_dir": folder, "errors": file}, ...]:
/// each in a thread and a lane of the GPU of its own (engine/cuda/lane.h), with the results it
/// would have alone. A run begins with its recipe, or goes on where its folder holds a checkpoint.
/// A line on standard output tells how each ended, and why one that failed did; "errors", which may
/// be missing, takes that too. False when `stop` ended one early. Throws UsageError for a list or
/// flags that do not fit, before anything runs, and Error at the end when a run failed.
bool train_together(const std::string& list, const SettingFlags& flags,
                    const std::atomic<bool>& stop);

}  // namespace hax
