// The released text format: PREFIX_{train,valid,test}_inputs.txt and
// PREFIX_{train,valid,test}_mask.txt, a sample a line, integers between spaces, padded with 3 to
// the fixed length; the mask on the same line number has 1 where the next token is to be recalled.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "data/dataset.h"

namespace hax {

/// Task parameters that the user gave; the others are found in the data.
struct TaskFlags {
  std::optional<std::int32_t> levels;
  std::optional<Range> contexts, keys;
  std::optional<std::int32_t> values;
};

/// Reads text files into a dataset, keeping the order of lines. What `flags` leaves open is found
/// from the nesting, which shows which tokens are values, keys and contexts: the smallest key ends
/// the values, the smallest context of a level ends the level inside it, the line length gives the
/// width of the outermost level, and the smallest table the lower bounds. Throws Error "file:line:
/// what" for anything that is no sample of the task, a mask that does not belong to its sample, and
/// a sample that occurred before in any split.
void import_text(const std::string& prefix, const std::filesystem::path& folder,
                 const TaskFlags& flags, bool replace, const DataProgress& progress = {});

/// Writes the six files. Throws UsageError when one exists, unless `replace`.
void export_text(const Dataset& dataset, const std::string& prefix, bool replace,
                 const DataProgress& progress = {});

}  // namespace hax
