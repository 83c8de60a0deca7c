// What a run has cost so far: costs.json of a run folder. It tells times, so equal runs differ in
// it and nothing is ever computed from it.
#pragma once

#include <cstdint>
#include <filesystem>

namespace hax {

struct RunCosts {
  std::int64_t steps = 0;   ///< optimiser steps that were timed; a resumed run adds to them
  std::int64_t tokens = 0;  ///< input tokens of these steps
  double seconds = 0;       ///< they took
  double evaluation_seconds = 0;
  std::int64_t peak_bytes = 0;  ///< tensors at once, at most

  bool operator==(const RunCosts&) const = default;
};

/// What the file says; all zero where it is missing or cannot be read (runs of older versions).
RunCosts read_costs(const std::filesystem::path& path);
/// Throws Error when it cannot be written.
void write_costs(const std::filesystem::path& path, const RunCosts& costs);

}  // namespace hax
