// The grid of a sweep: a JSON file of architectures, settings and what varies, and the runs that it
// stands for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/options.h"

namespace hax {

struct SweepRun {
  std::string name;      ///< the run's folder: "mamba+key_selection,lr=0.001,seed=1"
  std::string recipe;    ///< its settings, as `hax train --recipe` reads them
  TrainOptions options;  ///< the same
};

struct Grid {
  std::string text;  ///< the grid without its spaces: equal for equal grids
  std::vector<SweepRun> runs;
};

/// {"architectures": ["mamba", "mamba+key_selection", {settings}...], "settings": {of all runs},
/// "grid": {"lr": [values], "seed": [values], any other setting}}. An architecture is BASE,
/// BASE+SPARSE or an object of settings. Seeds vary slowest and architectures fastest, so that a
/// sweep that is stopped early has all rows with the first seeds. Throws UsageError naming `source`
/// and the first thing wrong in any run.
Grid parse_grid(std::string_view text, const std::string& source);

/// Runs i, i + n, i + 2n, ... of `--only i/n`, counted from 1; "" stands for all. Throws
/// UsageError.
std::vector<SweepRun> share_of(const std::vector<SweepRun>& runs, const std::string& only);

}  // namespace hax
